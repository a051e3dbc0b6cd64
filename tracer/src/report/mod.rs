//! Renderings of a story. Pure: a story and a verdict in, text out.

mod clean;
mod paint;
mod text;
mod tree;

pub use clean::{clean, command_line};
pub use paint::Paint;
pub use text::{Detail, text};
