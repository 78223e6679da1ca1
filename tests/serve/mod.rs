//! `vaplan serve`: the server as a program, by plain HTTP.

mod access;
mod added_classes;
mod audit;
mod beside_watch;
mod corrections;
mod epochs;
mod harness;
mod lists;
mod media;
mod report;
mod survival;
