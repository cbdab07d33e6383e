//! The processes behind `floortape serve`.
