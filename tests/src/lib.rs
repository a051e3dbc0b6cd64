pub mod browser;
pub mod lab;
pub mod vm;
