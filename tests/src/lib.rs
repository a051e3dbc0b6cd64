pub mod lab;
pub mod vm;
