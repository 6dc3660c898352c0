//! Reads and checks the headers of GGUF files: what a model says about itself, and whether it may be loaded at all.
//!
//! A model file comes from strangers and goes to llama.cpp, which ends the process on many a wrong value. So every file
//! is read here first, from its bytes alone, and refused with an [`Error`] that names the field and the fix. Files that
//! pass give typed access to their metadata and tensor table. Nothing here loads weights, computes, writes or knows
//! llama.cpp, and no memory is taken for a number that a file merely claims.
//!
//! - [`File`]: one file, checked; its metadata and tensors.
//! - [`Model`]: a whole model, all parts of a split one, checked together.
//! - [`parts`]: the names of the files that belong to a split model.
//! - [`Error`]: [`Place`] and [`Problem`], with what to do.
//!
//! ```no_run
//! # fn main() -> Result<(), hearth_gguf::Error> {
//! let model = hearth_gguf::Model::open("models/ember/ember.gguf".as_ref())?;
//! let file = model.first();
//! println!("{:?} {} {}", file.name(), model.quantisation(), model.parameters());
//! for (key, value) in file.metadata() {
//!     println!("{key} = {value}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The format is that of ggml's published specification (`docs/gguf.md` there), versions 2 and 3, little-endian.

mod check;
mod error;
mod families;
mod file;
mod model;
mod read;
mod tensor;
mod value;
mod vocabulary;

pub use error::{Error, Place, Problem};
pub use file::{File, Kind, PerLayer, Pooling, Special, Split};
pub use model::{Model, parts};
pub use tensor::{Tensor, TensorType};
pub use value::{Array, Value, ValueType};
