//! From resource files to what a node does: golden configurations, topologies, edge cases, laws, watched files.

mod bad_documents;
mod cluster;
mod edge_cases;
mod files;
mod golden;
mod laws;
mod scale;
mod services;
mod topologies;
mod wishes;
mod workloads;
