//! The crate as its users see it.

#[cfg(test)]
mod client_auth;
#[cfg(test)]
mod client_content;
#[cfg(test)]
mod client_credentials;
#[cfg(test)]
mod client_endpoints;
#[cfg(test)]
mod client_network;
#[cfg(test)]
mod client_push;
#[cfg(test)]
mod client_script;
#[cfg(test)]
mod server;
#[cfg(test)]
mod server_rights;
