//! The data plane: accepts connections, finds the app, picks a backend and
//! relays the exchange.

pub mod http1;
