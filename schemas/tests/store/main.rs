//! Laws of the tables and the store: what was committed is read back, whatever happens in between.

mod check;
mod crash;
mod damage;
mod laws;
mod patch;
mod scan;
mod support;
mod tables;
