//! Command-line values for the library's types that have a fixed set of names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::choice::Choice;

/// Returns a parser for the value of an option. The help lists every name with a line of explanation; the error for a
/// wrong name suggests the nearest name.
pub(super) fn choices<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let names = T::ALL
        .iter()
        .map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).map(|name| T::parse(&name).expect("clap admits only names of the set"))
}
