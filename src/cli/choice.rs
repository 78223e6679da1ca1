//! Command-line values of the library's closed sets of names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::choice::Choice;

/// Parser of an option's value: help lists every name with its line of help, and a wrong name is answered with the nearest.
pub(super) fn choices<T: Choice + Send + Sync>() -> impl TypedValueParser<Value = T> {
    let names = T::ALL
        .iter()
        .map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).map(|name| T::parse(&name).expect("clap admits only names of the set"))
}
