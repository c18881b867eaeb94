//! The HTTP APIs, asked over real connections.

mod clair;
mod external;
mod ground;
mod harbor;
mod notifier;
mod schema;
