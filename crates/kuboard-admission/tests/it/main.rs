//! The webhook from the outside: questions of an API server in, answers out, with doors that say
//! what a test wants them to say.

mod cold;
mod facts;
mod ground;
mod oracle;
mod properties;
mod reviews;
mod service;
mod table;
