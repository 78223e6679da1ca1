//! The registry of networks: their names, their settings, and how to make them.
//!
//! Settings files and checkpoints name a network by the key `network`. Files without the key were written before
//! there was more than one network; they mean [`DEFAULT`].

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use tch::Device;

use super::error::{NetworkError, WeightsProblem};
use super::han::Han;
use super::network::{NAME_KEY, Network, NetworkSizes, Parser};
use super::transformer::TemporalTransformer;
use super::weights::Weights;

/// All networks. A new network adds one line here.
static NETWORKS: &[Entry] = &[
    Entry::of::<Han>(),
    Entry::of::<TemporalTransformer>(),
    #[cfg(test)]
    Entry::of::<super::tests::linear_network::LinearNetwork>(),
];

/// The network of settings and checkpoints that do not name one.
pub const DEFAULT: &str = Han::NAME;

type Values = Map<String, Value>;
type Made<E> = Result<Box<dyn Parser>, E>;
type Build = fn(&Values, &NetworkSizes, u64, Device) -> Made<NetworkError>;
type Load = fn(&mut Weights, Device) -> Made<WeightsProblem>;

/// One network: the functions of its [`Network`], without the type of its settings.
#[derive(Debug)]
struct Entry {
    name: &'static str,
    keys: &'static [&'static str],
    /// Fills in the defaults. Returns a message for an unknown key or a value of another type.
    complete: fn(&Values) -> Result<Values, String>,
    check: fn(&Values) -> Result<(), NetworkError>,
    build: Build,
    load: Load,
}

impl Entry {
    const fn of<N: Network>() -> Entry {
        Entry {
            name: N::NAME,
            keys: N::KEYS,
            complete: complete::<N>,
            check: check::<N>,
            build: build::<N>,
            load: load_as::<N>,
        }
    }
}

fn complete<N: Network>(values: &Values) -> Result<Values, String> {
    for (key, value) in values {
        // Read one key at a time, because the message of a wrong type does not name the key.
        let alone = Map::from_iter([(key.clone(), value.clone())]);
        let read = serde_json::from_value::<N::Settings>(Value::Object(alone));
        read.map_err(|error| format!("{key}: {error}"))?;
    }
    let settings: N::Settings =
        serde_json::from_value(Value::Object(values.clone())).map_err(|error| error.to_string())?;
    Ok(values_of::<N>(&settings))
}

fn values_of<N: Network>(settings: &N::Settings) -> Values {
    match serde_json::to_value(settings) {
        Ok(Value::Object(values)) => values,
        other => unreachable!("settings of a network are a struct of plain values, not {other:?}"),
    }
}

fn typed<N: Network>(values: &Values) -> N::Settings {
    let read = serde_json::from_value(Value::Object(values.clone()));
    read.expect("values were read as these settings when they were made")
}

fn check<N: Network>(values: &Values) -> Result<(), NetworkError> {
    N::check(&typed::<N>(values))
}

fn build<N: Network>(values: &Values, sizes: &NetworkSizes, seed: u64, device: Device) -> Made<NetworkError> {
    Ok(Box::new(N::build(&typed::<N>(values), sizes, seed, device)?))
}

fn load_as<N: Network>(weights: &mut Weights, device: Device) -> Made<WeightsProblem> {
    Ok(Box::new(N::load(weights, device)?))
}

fn entry(name: &str) -> Result<&'static Entry, String> {
    let found = NETWORKS.iter().find(|entry| entry.name == name);
    found.ok_or_else(|| {
        let known: Vec<String> = names().iter().map(|name| format!("`{name}`")).collect();
        format!("network is `{name}`, expected {}", known.join(" or "))
    })
}

/// The names of all networks.
pub fn names() -> Vec<&'static str> {
    NETWORKS.iter().map(|entry| entry.name).collect()
}

/// The keys of all networks' settings, each once.
pub(super) fn keys() -> Vec<&'static str> {
    let mut keys: Vec<&str> = NETWORKS.iter().flat_map(|entry| entry.keys).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// A network's name and its own settings.
///
/// ```
/// use vaplan::parser::registry::NetworkSettings;
/// let settings = NetworkSettings::default();
/// assert_eq!(settings.name(), "han");
/// assert_eq!(serde_json::to_value(&settings)?["hidden"], 512);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    entry: &'static Entry,
    /// A value for each key of the entry.
    values: Values,
    /// The values that were given. The others are defaults.
    given: Values,
}

impl NetworkSettings {
    /// The settings of the network with this name. Keys that are not in `values` get their defaults.
    ///
    /// # Errors
    /// Returns a message with the name or key, the value found and what was expected.
    pub fn new(name: &str, values: &Map<String, Value>) -> Result<NetworkSettings, String> {
        let entry = entry(name)?;
        if let Some(key) = values.keys().find(|key| !entry.keys.contains(&key.as_str())) {
            let known: Vec<String> = entry.keys.iter().map(|key| format!("`{key}`")).collect();
            return Err(format!(
                "`{key}` is not a setting of network `{name}`, expected one of {}",
                known.join(", ")
            ));
        }
        Ok(NetworkSettings {
            entry,
            given: values.clone(),
            values: (entry.complete)(values)?,
        })
    }

    /// The settings of another network. It keeps the values that were given and has its own defaults for the others.
    ///
    /// # Errors
    /// Returns the same errors as [`NetworkSettings::new`].
    pub fn of_network(&self, name: &str) -> Result<NetworkSettings, String> {
        NetworkSettings::new(name, &self.given)
    }

    /// The settings of the network `N`.
    ///
    /// # Panics
    /// Panics if `N` is not in the registry.
    pub fn of<N: Network>(settings: &N::Settings) -> NetworkSettings {
        NetworkSettings {
            entry: entry(N::NAME).expect("the network is in the registry"),
            values: values_of::<N>(settings),
            given: values_of::<N>(settings),
        }
    }

    /// The name of the network.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// Returns the same errors as [`Network::check`].
    pub fn check(&self) -> Result<(), NetworkError> {
        (self.entry.check)(&self.values)
    }

    /// Makes a network with random weights, which depend on `seed` only.
    ///
    /// # Errors
    /// Returns the same errors as [`Network::build`], and [`NetworkError::Config`] if a setting or size is wrong.
    pub fn build(
        &self,
        sizes: &NetworkSizes,
        seed: u64,
        device: Device,
    ) -> Result<Box<dyn Parser>, NetworkError> {
        self.check()?;
        sizes.check()?;
        (self.entry.build)(&self.values, sizes, seed, device)
    }
}

impl Default for NetworkSettings {
    fn default() -> NetworkSettings {
        NetworkSettings::new(DEFAULT, &Map::new()).expect("every setting has a default")
    }
}

impl PartialEq for NetworkSettings {
    fn eq(&self, other: &NetworkSettings) -> bool {
        self.name() == other.name() && self.values == other.values
    }
}

/// Writes the name under the key `network`, and beside it every key of the settings. The name of the default network
/// is left out: a hash of this text identifies trainings, stages of `run` and scores of `ablate`, and older versions
/// of the program did not write a name into it.
impl Serialize for NetworkSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if self.name() != DEFAULT {
            map.serialize_entry(NAME_KEY, self.name())?;
        }
        for key in self.entry.keys {
            map.serialize_entry(key, &self.values[*key])?;
        }
        map.end()
    }
}

/// Makes the network that a checkpoint names, with its parameters taken out of `weights`.
///
/// # Errors
/// Returns the same errors as [`Network::load`], and [`WeightsProblem::Format`] if the name is not in the registry.
pub fn load(weights: &mut Weights, device: Device) -> Result<Box<dyn Parser>, WeightsProblem> {
    let name = weights.metadata.get(NAME_KEY).map_or(DEFAULT, String::as_str);
    let entry = entry(name).map_err(WeightsProblem::Format)?;
    (entry.load)(weights, device)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_network_lists_the_keys_of_its_settings_and_has_a_name_of_its_own() {
        for entry in NETWORKS {
            let defaults = (entry.complete)(&Map::new()).unwrap();
            let found: BTreeSet<&str> = defaults.keys().map(String::as_str).collect();
            assert_eq!(found, entry.keys.iter().copied().collect(), "{}", entry.name);
            assert!(!entry.keys.contains(&NAME_KEY), "{}", entry.name);
            let same = NETWORKS.iter().filter(|other| other.name == entry.name);
            assert_eq!(same.count(), 1, "{}", entry.name);
        }
    }

    #[test]
    fn a_checkpoint_names_its_network_and_one_without_a_name_is_of_han() {
        let sizes = NetworkSizes {
            audio: 3,
            visual: 4,
            clips: None,
            classes: 2,
        };
        let settings = Map::from_iter([
            ("hidden".to_owned(), Value::from(8)),
            ("heads".to_owned(), 2.into()),
        ]);
        let settings = NetworkSettings::new("han", &settings).unwrap();
        let parser = settings.build(&sizes, 1, Device::Cpu).unwrap();
        let mut named = parser.named_weights();
        assert_eq!(named.metadata["network"], "han");
        assert_eq!(load(&mut named, Device::Cpu).unwrap().name(), "han");
        // The program wrote checkpoints in this way before networks had names.
        let mut old = parser.weights();
        assert_eq!(old.metadata.keys().collect::<Vec<_>>(), ["heads"]);
        let loaded = load(&mut old, Device::Cpu).unwrap();
        assert_eq!((loaded.name(), loaded.sizes()), ("han", &sizes));
        let mut other = parser.named_weights();
        other.metadata.insert("network".to_owned(), "hat".to_owned());
        let refusal = load(&mut other, Device::Cpu).unwrap_err().to_string();
        assert!(
            refusal.starts_with("network is `hat`, expected `han`"),
            "{refusal}"
        );
    }

    #[test]
    fn another_network_keeps_the_values_that_were_given_and_takes_its_own_defaults() {
        let given = Map::from_iter([("hidden".to_owned(), Value::from(64))]);
        let han = NetworkSettings::new("han", &given).unwrap();
        let other = serde_json::to_value(han.of_network("transformer").unwrap()).unwrap();
        let expected = serde_json::json!({
            "network": "transformer", "hidden": 64, "feedforward": 512, "layers": 5, "heads": 4, "dropout": 0.1
        });
        assert_eq!(other, expected);
        assert_eq!(serde_json::to_value(&han).unwrap()["layers"], 1);
    }

    #[test]
    fn an_unknown_network_an_unknown_key_and_a_wrong_type_are_refused_by_name() {
        let refused = |name: &str, key: &str, value: Value| {
            NetworkSettings::new(name, &Map::from_iter([(key.to_owned(), value)])).unwrap_err()
        };
        let refusal = refused("hat", "hidden", 3.into());
        assert!(
            refusal.starts_with("network is `hat`, expected `han`"),
            "{refusal}"
        );
        let refusal = refused("han", "width", 3.into());
        assert!(
            refusal.starts_with("`width` is not a setting of network `han`, expected one of `hidden`, "),
            "{refusal}"
        );
        let refusal = refused("han", "hidden", "many".into());
        assert_eq!(refusal, "hidden: invalid type: string \"many\", expected i64");
    }
}
