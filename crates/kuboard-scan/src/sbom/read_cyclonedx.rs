//! CycloneDX as JSON, 1.2 to 1.7: components are taken one by one, nested ones too.
//!
//! Pedigrees, services and formulations name components that are not installed; they are not
//! read.

use std::fmt;

use kuboard_oci::Digest;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    collect::{Collector, Component, Kind},
    seeds::{Each, Few, Text},
};

/// The document.
pub(super) struct Bom<'c>(pub &'c mut Collector);

/// Implements a seed that reads an object by its visitor.
macro_rules! object {
    ($name:ident, $value:ty) => {
        impl<'de> DeserializeSeed<'de> for $name<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<$value, D::Error> {
                from.deserialize_any(self)
            }
        }
    };
}

object!(Bom, ());
object!(Metadata, ());
object!(Components, ());
object!(One, Option<Component>);

impl<'de> Visitor<'de> for Bom<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a bill of materials")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match key.as_str() {
                "components" => map.next_value_seed(Components(self.0))?,
                "metadata" => map.next_value_seed(Metadata(self.0))?,
                "properties" => {
                    let Few(properties) = map.next_value::<Few<Property, 2000>>()?;
                    document_properties(self.0, properties);
                }
                "compositions" => {
                    let Few(all) = map.next_value::<Few<Composition, 1000>>()?;
                    if all.iter().any(|one| is_incomplete(&one.aggregate.0)) {
                        incomplete(self.0);
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn is_incomplete(aggregate: &str) -> bool {
    aggregate.starts_with("incomplete")
}

/// Notes that the document says of itself that something is missing.
pub(super) fn incomplete(collector: &mut Collector) {
    collector.problem("", "the bill of materials says that it is incomplete".to_owned());
}

fn document_properties(collector: &mut Collector, properties: Vec<Property>) {
    for property in properties {
        collector.document_property(&property.name.0, &property.value.0);
    }
}

struct Metadata<'c>(&'c mut Collector);

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metadata")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(key)) = map.next_key()? {
            match key.as_str() {
                "component" => {
                    if let Some(component) = map.next_value_seed(One(self.0))? {
                        self.0.subject(&component);
                        // Its own nested components were taken; a program that was described by
                        // itself is a package as well.
                        if component.kind == Kind::Package && !component.purl.is_empty() {
                            self.0.component(component);
                        }
                    }
                }
                "properties" => {
                    let Few(properties) = map.next_value::<Few<Property, 2000>>()?;
                    document_properties(self.0, properties);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// A list of components, which are handed to the collector.
struct Components<'c>(&'c mut Collector);

impl<'de> Visitor<'de> for Components<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of components")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(component) = seq.next_element_seed(One(self.0))? {
            if let Some(component) = component {
                self.0.component(component);
            }
        }
        Ok(())
    }
}

/// One component; those inside of it are handed on.
struct One<'c>(&'c mut Collector);

impl<'de> Visitor<'de> for One<'_> {
    type Value = Option<Component>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Component>, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Component>, A::Error> {
        self.0.count().map_err(A::Error::custom)?;
        let mut component = Component::default();
        let mut group = String::new();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_str() {
                "type" => component.kind = kind(&map.next_value::<Text>()?.0),
                "group" => group = map.next_value::<Text>()?.0,
                "name" => component.name = map.next_value::<Text>()?.0,
                "version" => component.version = map.next_value::<Text>()?.0,
                "purl" => component.purl = map.next_value::<Text>()?.0,
                "description" => component.about = map.next_value::<Text>()?.0,
                "licenses" => {
                    let licenses = &mut component.licenses;
                    map.next_value_seed(Each::new(|choice: Choice| {
                        let text = choice.text();
                        if !text.is_empty() && licenses.len() < 64 {
                            licenses.push(text);
                        }
                        Ok(())
                    }))?;
                }
                "hashes" => {
                    let Few(hashes) = map.next_value::<Few<Hash, 16>>()?;
                    component.hash = hashes.iter().find_map(Hash::digest);
                }
                "properties" => {
                    let properties = &mut component.properties;
                    map.next_value_seed(Each::new(|property: Property| {
                        // Layers of an image, and what other tools say of a package.
                        if properties.len() < 2048 {
                            properties.push((property.name.0, property.value.0));
                        }
                        Ok(())
                    }))?;
                }
                "components" => map.next_value_seed(Components(self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        component.name = grouped(&group, component.name);
        Ok(Some(component))
    }
}

/// npm's scope, Maven's group and others stand beside the name.
pub(super) fn grouped(group: &str, name: String) -> String {
    if group.is_empty() { name } else { format!("{group}/{name}") }
}

/// What CycloneDX's types of components mean here.
pub(super) fn kind(word: &str) -> Kind {
    match word {
        "library" | "application" | "framework" | "" => Kind::Package,
        "container" => Kind::Image,
        "operating-system" => Kind::OperatingSystem,
        _ => Kind::Other,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Property {
    name: Text,
    value: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Composition {
    aggregate: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    license: Option<License>,
    expression: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct License {
    id: Text,
    name: Text,
}

impl Choice {
    fn text(self) -> String {
        match self.license {
            Some(license) if license.id.0.is_empty() => license.name.0,
            Some(license) => license.id.0,
            None => self.expression.0,
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Hash {
    alg: Text,
    content: Text,
}

impl Hash {
    fn digest(&self) -> Option<Digest> {
        (self.alg.0 == "SHA-256").then(|| format!("sha256:{}", self.content.0).parse().ok())?
    }
}
