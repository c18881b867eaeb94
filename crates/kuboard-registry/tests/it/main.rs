//! The crate as its users see it.

mod client_auth;
mod client_content;
mod client_endpoints;
mod client_network;
mod client_credentials;
mod client_script;
#[cfg(test)]
mod server;
