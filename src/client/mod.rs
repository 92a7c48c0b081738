//! What is known of a client.
//!
//! A [`Session`](session::Session) belongs to one connection and is seen by its commands alone; its
//! [`Shared`](shared::Shared) half is what others may read (CLIENT LIST) and how they reach it: to
//! push a message, to close it. The [`Registry`](registry::Registry) holds the shared halves,
//! [`Weights`](weights::Weights) has them by the memory that they take.

pub mod feed;
pub mod outbox;
pub mod registry;
pub mod session;
pub mod shared;
pub mod subscriptions;
pub mod tracking;
pub mod transaction;
pub mod weights;
