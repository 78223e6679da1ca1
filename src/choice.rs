//! Closed sets of names: options that have a fixed list of values, such as a metric or an output format.
//!
//! The library names the values here. `cli` makes a command-line parser of every [`Choice`], so that the library needs no
//! command-line crate.

/// An enum whose values have fixed names.
///
/// ```
/// use vaplan::choice::Choice;
/// use vaplan::eval::Task;
///
/// assert_eq!(Task::Ave.name(), "ave");
/// assert_eq!(Task::parse("avvp")?, Task::Avvp);
/// let error = Task::parse("avv").unwrap_err();
/// assert_eq!(error.to_string(), "task is `avv`, expected one of `avvp`, `ave`");
/// # Ok::<(), vaplan::choice::UnknownChoice>(())
/// ```
pub trait Choice: Copy + PartialEq + Sized + 'static {
    /// What the values are called in messages, for example `metric`.
    const WHAT: &'static str;

    /// Every value once, with its name and one line of help, in the order in which help lists them.
    const ALL: &'static [(Self, &'static str, &'static str)];

    /// Name of the value, as users type it.
    ///
    /// # Panics
    /// If [`Choice::ALL`] lacks the value.
    fn name(self) -> &'static str {
        let (_, name, _) = Self::ALL
            .iter()
            .find(|(value, ..)| *value == self)
            .expect("`ALL` lists every value");
        name
    }

    /// The value that has this name; upper and lower case differ.
    ///
    /// # Errors
    /// [`UnknownChoice`] if no value has this name.
    fn parse(name: &str) -> Result<Self, UnknownChoice> {
        let found = Self::ALL.iter().find(|(_, known, _)| *known == name);
        found.map(|(value, ..)| *value).ok_or_else(|| UnknownChoice {
            what: Self::WHAT,
            found: name.to_owned(),
            expected: Self::ALL.iter().map(|(_, name, _)| *name).collect(),
        })
    }
}

/// A name that is not in its closed set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is `{found}`, expected one of `{}`", expected.join("`, `"))]
pub struct UnknownChoice {
    /// What the name stands for, [`Choice::WHAT`].
    pub what: &'static str,
    /// Name that was given.
    pub found: String,
    /// All names of the set.
    pub expected: Vec<&'static str>,
}

/// The known name that is most like `name`; `None` if no name is known.
///
/// ```
/// use vaplan::choice::nearest;
/// assert_eq!(nearest("evry", ["rule", "every"]), Some("every"));
/// assert_eq!(nearest("evry", []), None);
/// ```
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |known: &str| strsim::jaro_winkler(name, known);
    let known = known.into_iter();
    known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}
