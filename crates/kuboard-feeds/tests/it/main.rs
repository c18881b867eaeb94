//! The crate as its users see it.

#[cfg(test)]
mod feeds;
#[cfg(test)]
mod update;
#[cfg(test)]
mod update_folder;
