//! The paths of the inputs of a store: checks, and a move to another folder.

use std::path::{Path, PathBuf};

use vaplan_schemas::Modality;
use vaplan_schemas::store::Store;

use super::World;
use crate::error::LabelError;
use crate::ingest::remote;

/// Checks that the features of a store can be found, before a change reads any of them.
///
/// Without this check, a folder that is not mounted would look like a folder whose videos lost their features. The
/// change would then unset the labels of these videos.
///
/// # Errors
/// - Returns [`LabelError::RelativeInputs`] if an older program recorded the paths as the user typed them.
/// - Returns [`LabelError::InputGone`] if an input does not exist.
pub(crate) fn check(store: &Store, world: &World) -> Result<(), LabelError> {
    check_absolute(store, world)?;
    for modality in Modality::ALL {
        for path in &world.features[modality.index()] {
            if !remote::exists(path) {
                return Err(LabelError::InputGone {
                    store: store.root().to_owned(),
                    modality,
                    path: path.clone(),
                });
            }
        }
    }
    Ok(())
}

/// Checks that the store records absolute paths.
///
/// # Errors
/// Returns [`LabelError::RelativeInputs`] if a recorded path is relative.
pub(crate) fn check_absolute(store: &Store, world: &World) -> Result<(), LabelError> {
    let relative = world
        .features
        .iter()
        .flatten()
        .find(|path| remote::is_relative(path));
    match relative {
        None => Ok(()),
        Some(path) => Err(LabelError::RelativeInputs {
            store: store.root().to_owned(),
            path: path.clone(),
            here: std::env::current_dir().unwrap_or_default(),
        }),
    }
}

/// Moves paths from one folder to another.
#[derive(Clone, Debug)]
pub(crate) struct PathMove {
    from: PathBuf,
    to: PathBuf,
}

impl PathMove {
    /// Moves paths at or below `from`, as the store records them, to `to`. `from` can be `.`, the folder of relative
    /// paths; `to` is absolute.
    pub(crate) fn new(from: &Path, to: &Path) -> PathMove {
        PathMove {
            from: without_dots(from),
            to: to.to_owned(),
        }
    }

    /// The new folder or file.
    pub(crate) fn target(&self) -> &Path {
        &self.to
    }

    /// The new place of a recorded path. `None` if the path is not at or below the old folder.
    pub(crate) fn path(&self, path: &Path) -> Option<PathBuf> {
        let plain = without_dots(path);
        if plain.is_absolute() != self.from.is_absolute() {
            return None;
        }
        let rest = plain.strip_prefix(&self.from).ok()?;
        Some(match rest.as_os_str().is_empty() {
            true => self.to.clone(),
            false => self.to.join(rest),
        })
    }

    /// Like [`PathMove::path`], for a path in a text column.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let moved = self.path(Path::new(path))?;
        (!path.is_empty()).then(|| moved.display().to_string())
    }
}

fn without_dots(path: &Path) -> PathBuf {
    let parts = path.components();
    parts
        .filter(|part| !matches!(part, std::path::Component::CurDir))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_old_folder_move_and_others_stay() {
        let moves = PathMove::new(Path::new("/old"), Path::new("/new/place"));
        let of = |path: &str| moves.text(path);
        assert_eq!(of("/old/a/b.npy").as_deref(), Some("/new/place/a/b.npy"));
        assert_eq!(of("/old").as_deref(), Some("/new/place"));
        assert_eq!((of("/older/a"), of("old/a"), of("")), (None, None, None));
        let relative = PathMove::new(Path::new("."), Path::new("/new"));
        assert_eq!(relative.text("./a").as_deref(), Some("/new/a"));
        assert_eq!(relative.text("a").as_deref(), Some("/new/a"));
        assert_eq!((relative.text("/a"), relative.text("")), (None, None));
    }
}
