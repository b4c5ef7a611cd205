//! A live margay as its neighbours see it: good ones, careless ones and hostile ones.
//!
//! Each test runs in a network namespace of its own and drives one margay from several loopback addresses. Where a message is
//! malformed, a canary route on the same session, another one on a bystander's session and an observer's session tell what
//! became of it. Tests are named after the statements that they prove.

mod agents;
mod bird;
mod bird_readers;
mod birdwatcher;
mod bmp;
mod compare;
mod confirm;
mod crowd;
mod diag;
mod diff;
mod disk;
mod events;
mod exposure;
mod faults;
mod fields;
mod header;
mod health;
mod import;
mod isolation;
mod keys;
mod large;
mod looks;
mod metrics;
mod mrt;
mod objects;
mod open;
mod page;
mod questions;
mod record;
mod restart;
mod routes;
mod services;
mod session;
mod unknown;
mod workload_agent;
mod workloads;
