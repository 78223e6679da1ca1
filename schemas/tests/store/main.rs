//! Laws of the tables and the store: what was committed is read back, whatever happens in between.

mod ahead;
mod check;
mod crash;
mod damage;
mod evolve;
mod former;
mod growth;
mod inputs;
mod laws;
mod log_copy;
mod objects;
mod optimize;
mod parts;
mod patch;
mod plain;
mod scan;
mod support;
mod sweep;
mod tables;
mod training;
mod vacuum;
