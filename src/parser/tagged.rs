//! Reads settings in which a network's keys stand beside the keys of a struct, tagged by the key `network`.
//!
//! serde's `flatten` cannot do this: it neither refuses unknown keys nor keeps the line of an error.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::network::NAME_KEY;
use super::registry::{DEFAULT, NetworkSettings, keys};

/// Reads a struct with `read`, which sees only the struct's own keys. The other keys are the network's settings.
pub(super) fn with_network<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    read: impl FnOnce(OwnKeys<'_, D>) -> Result<T, D::Error>,
) -> Result<(T, NetworkSettings), D::Error> {
    let mut network = Map::new();
    let own = read(OwnKeys {
        inner: deserializer,
        network: &mut network,
    })?;
    let name = match network.remove(NAME_KEY) {
        None => DEFAULT.to_owned(),
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(Error::custom(format!(
                "{NAME_KEY} is {other}, expected the name of a network"
            )));
        }
    };
    Ok((own, NetworkSettings::new(&name, &network).map_err(Error::custom)?))
}

/// A deserializer that passes a struct its own keys and collects the keys of networks in `network`.
pub(super) struct OwnKeys<'a, D> {
    inner: D,
    network: &'a mut Map<String, Value>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for OwnKeys<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(OwnKeysVisitor {
            inner: visitor,
            fields: &[],
            network: self.network,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(OwnKeysVisitor {
            inner: visitor,
            fields,
            network: self.network,
        })
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct OwnKeysVisitor<'a, V> {
    inner: V,
    /// The keys of the struct.
    fields: &'static [&'static str],
    network: &'a mut Map<String, Value>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for OwnKeysVisitor<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(OwnKeysMap {
            inner: map,
            fields: self.fields,
            network: self.network,
        })
    }
}

struct OwnKeysMap<'a, A> {
    inner: A,
    fields: &'static [&'static str],
    network: &'a mut Map<String, Value>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for OwnKeysMap<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            let key = KeySeed {
                own: &mut seed,
                fields: self.fields,
            };
            match self.inner.next_key_seed(key)? {
                None => return Ok(None),
                Some(Key::Own(key)) => return Ok(Some(key)),
                Some(Key::Network(key)) => {
                    let value = self.inner.next_value()?;
                    self.network.insert(key, value);
                }
            }
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }
}

enum Key<K> {
    Own(K),
    Network(String),
}

/// Reads one key. It raises its errors here, so that the reader of the format adds the line of the key to them.
struct KeySeed<'a, K> {
    own: &'a mut Option<K>,
    fields: &'static [&'static str],
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeySeed<'_, K> {
    type Value = Key<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key<K::Value>, D::Error> {
        let key = String::deserialize(deserializer)?;
        let of_networks = keys();
        if key == NAME_KEY || of_networks.contains(&key.as_str()) {
            return Ok(Key::Network(key));
        }
        if !self.fields.contains(&key.as_str()) {
            let known = self.fields.iter().chain([&NAME_KEY]).chain(&of_networks);
            let known: Vec<String> = known.map(|known| format!("`{known}`")).collect();
            return Err(Error::custom(format!(
                "unknown field `{key}`, expected one of {}",
                known.join(", ")
            )));
        }
        let own = self.own.take().expect("a key of the struct ends the loop");
        own.deserialize(key.into_deserializer()).map(Key::Own)
    }
}
