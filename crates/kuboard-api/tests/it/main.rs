//! The configuration as its users meet it: files in, rules and messages out.

#[cfg(test)]
mod messages;
#[cfg(test)]
mod parsing;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod routing;
