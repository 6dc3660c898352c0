//! What this machine can do, measured before any model is there: how fast it reads quantised weights, which bounds
//! decoding, and how fast it multiplies them, which bounds prefill (the roofline model: Williams, Waterman and
//! Patterson 2009). From the two follows how fast a model is likely to be ([`estimate`]).
//!
//! The work is ggml's own: products of Q4_K matrices of a real layer's size, more of them than any cache holds, once
//! with one column (a token) and once with many (a prompt), on the device and in the memory layout that llama.cpp would
//! choose.

use std::ffi::{CStr, c_void};
use std::time::{Duration, Instant};

use hearth_protocol::machine::{Estimate, Fit, Machine};
use llama_cpp_sys_2 as sys;

use crate::options::machine_memory;

/// Rows and columns of a matrix.
const SIDE: i64 = 4096;
/// Columns of the prompt.
const PROMPT: i64 = 256;
/// Bytes of a row: blocks of 256 weights in 144 bytes.
const ROW_BYTES: usize = SIDE as usize / 256 * 144;
/// Matrices: together larger than the caches of a processor or a GPU.
const MATRICES: usize = 24;
/// How long each of the two is measured at least.
const LONG_ENOUGH: Duration = Duration::from_millis(600);

/// What must be known of a model to estimate its speed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelSize {
    /// Bytes of the file.
    pub bytes: u64,
    /// Parameters.
    pub parameters: u64,
    /// Parameters that one token passes through; fewer than all in a mixture of experts.
    pub active: u64,
    /// Bytes of keys and values of one token, all layers together.
    pub kv_bytes_per_token: u64,
}

/// Tokens of context that an estimate counts in.
const CONTEXT: u64 = 8192;
/// Share of the machine's memory that models may take, as the engine's own budget is.
const SHARE: (u64, u64) = (3, 4);

/// What a token costs beside its weights (attention, norms, the choice of the token, threads that wait for each other), as
/// if so many more bytes were read. With it a model of 0.6 billion parameters in Q4_K_M and in Q8_0 comes out within 5 %
/// of what was measured, where the bytes alone promise half as much again.
const BESIDE_WEIGHTS: f64 = 250e6;
/// Share of the multiplications measured here that a whole model's prefill reaches, by the same measurement.
const PREFILL_SHARE: f64 = 0.7;

/// Measures for a second or two. `threads` of `None` are all cores; `cpu` leaves a GPU aside.
///
/// # Errors
/// Says what failed if there is no device, no memory for the matrices, or the device gives up.
pub fn measure(threads: Option<u32>, cpu: bool) -> Result<Machine, String> {
    crate::llama::initialise();
    let threads = threads.unwrap_or_else(crate::plan::usable_cores);
    let bench = Bench::new(threads, cpu)?;
    let token = bench.seconds(1)?;
    let prompt = bench.seconds(PROMPT)?;
    let bytes = (MATRICES * ROW_BYTES) as f64 * SIDE as f64;
    let operations = 2.0 * (SIDE * SIDE * PROMPT) as f64 * MATRICES as f64;
    Ok(Machine {
        device: bench.name(),
        gpu: bench.gpu,
        threads,
        memory: machine_memory(),
        gpu_memory: crate::llama::gpu_free_bytes(),
        weight_bytes_per_second: bytes / token,
        operations_per_second: operations / prompt,
    })
}

/// How a model is likely to do on a machine.
pub fn estimate(machine: &Machine, model: &ModelSize) -> Estimate {
    let bytes = model.bytes + CONTEXT * model.kv_bytes_per_token;
    let room = machine.memory / SHARE.1 * SHARE.0;
    let fit = match machine.gpu {
        // A tenth stays free for compute buffers.
        true if bytes <= machine.gpu_memory / 10 * 9 => Fit::Whole,
        true if bytes <= machine.gpu_memory + room => Fit::Shared,
        false if bytes <= room => Fit::Whole,
        _ => Fit::No,
    };
    let active = model.active as f64 / model.parameters.max(1) as f64;
    let read = model.bytes as f64 * active;
    Estimate {
        bytes,
        fit,
        decode: machine.weight_bytes_per_second / (read + BESIDE_WEIGHTS),
        prefill: PREFILL_SHARE * machine.operations_per_second / (2.0 * model.active.max(1) as f64),
    }
}

/// The matrices on a device, and the products.
struct Bench {
    device: sys::ggml_backend_dev_t,
    backend: sys::ggml_backend_t,
    gpu: bool,
    weights: Vec<*mut sys::ggml_tensor>,
    context: *mut sys::ggml_context,
    buffer: sys::ggml_backend_buffer_t,
}

#[allow(unsafe_code)]
impl Bench {
    fn new(threads: u32, cpu: bool) -> Result<Self, String> {
        // SAFETY: the registry is filled (`initialise`); null stands for "no such device" and is checked.
        let (device, gpu) = unsafe {
            let gpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_GPU);
            match gpu.is_null() || cpu {
                true => (
                    sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU),
                    false,
                ),
                false => (gpu, true),
            }
        };
        if device.is_null() {
            return Err("there is no device to measure".into());
        }
        // SAFETY: the device is one of the registry's; no parameters are given.
        let backend = unsafe { sys::ggml_backend_dev_init(device, std::ptr::null()) };
        if backend.is_null() {
            return Err("the device could not be started".into());
        }
        let mut bench = Self {
            device,
            backend,
            gpu,
            weights: Vec::new(),
            context: std::ptr::null_mut(),
            buffer: std::ptr::null_mut(),
        };
        bench.set_threads(threads);
        bench.fill()?;
        Ok(bench)
    }

    fn name(&self) -> String {
        // SAFETY: the device is valid, and its description is a text that lives as long.
        let text = unsafe { CStr::from_ptr(sys::ggml_backend_dev_description(self.device)) };
        text.to_string_lossy().trim().to_owned()
    }

    /// A function that the device's back end offers under a name.
    fn offered(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the device is valid and so is its registry's entry.
        unsafe {
            let registry = sys::ggml_backend_dev_backend_reg(self.device);
            sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr())
        }
    }

    fn set_threads(&self, threads: u32) {
        let set = self.offered(c"ggml_backend_set_n_threads");
        if set.is_null() {
            return;
        }
        type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, std::ffi::c_int);
        // SAFETY: under this name back ends offer a function of this type (`ggml_backend_set_n_threads_t`).
        unsafe {
            let set = std::mem::transmute::<*mut c_void, SetThreads>(set);
            set(self.backend, i32::try_from(threads).unwrap_or(i32::MAX));
        }
    }

    /// The layout that llama.cpp prefers for weights on this device, or null for the usual one.
    fn layout(&self) -> sys::ggml_backend_buffer_type_t {
        let get = self.offered(c"ggml_backend_dev_get_extra_bufts");
        if get.is_null() {
            return std::ptr::null_mut();
        }
        type Layouts =
            unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
        // SAFETY: under this name back ends offer a function of this type (`ggml_backend_dev_get_extra_bufts_t`); it
        // gives an array that ends with null.
        unsafe {
            let get = std::mem::transmute::<*mut c_void, Layouts>(get);
            let layouts = get(self.device);
            if layouts.is_null() {
                return std::ptr::null_mut();
            }
            // The last one is the most general: AMX, where it is there, comes first and takes no Q4_K of its own.
            let mut last = std::ptr::null_mut();
            let mut at = layouts;
            while !(*at).is_null() {
                last = *at;
                at = at.add(1);
            }
            last
        }
    }

    /// Makes the weights and gives them values that are no special case for any device.
    fn fill(&mut self) -> Result<(), String> {
        // SAFETY: a context without memory of its own holds only descriptions; the tensors live as long as it does,
        // and it is freed with `self`.
        unsafe {
            self.context = sys::ggml_init(sys::ggml_init_params {
                mem_size: sys::ggml_tensor_overhead() * (MATRICES + 1),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            });
            if self.context.is_null() {
                return Err("no memory for the measurement".into());
            }
            for _ in 0..MATRICES {
                let tensor = sys::ggml_new_tensor_2d(self.context, sys::GGML_TYPE_Q4_K, SIDE, SIDE);
                self.weights.push(tensor);
            }
            let layout = self.layout();
            if !layout.is_null() {
                self.buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(self.context, layout);
            }
            if self.buffer.is_null() {
                self.buffer = sys::ggml_backend_alloc_ctx_tensors(self.context, self.backend);
            }
        }
        if self.buffer.is_null() {
            return Err("no memory for the measurement".into());
        }
        // A block of Q4_K: two half-precision scales (0.01), twelve bytes of scales, 128 of weights.
        let mut block = vec![0x1f, 0x21, 0x1f, 0x21];
        block.extend((0..140u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
        let bytes = block.repeat(ROW_BYTES / block.len() * SIDE as usize);
        for tensor in &self.weights {
            // SAFETY: the tensor is allocated and as long as `bytes` (`ROW_BYTES` rows of Q4_K).
            unsafe {
                debug_assert_eq!(sys::ggml_nbytes(*tensor), bytes.len());
                sys::ggml_backend_tensor_set(*tensor, bytes.as_ptr().cast(), 0, bytes.len());
            }
        }
        Ok(())
    }

    /// Median seconds of a pass over all matrices with this many columns.
    fn seconds(&self, columns: i64) -> Result<f64, String> {
        let work = Work::new(self, columns)?;
        // The first pass warms up clocks and caches.
        work.run()?;
        let (mut times, begun) = (Vec::new(), Instant::now());
        while begun.elapsed() < LONG_ENOUGH || times.len() < 3 {
            let start = Instant::now();
            work.run()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }
}

#[allow(unsafe_code)]
impl Drop for Bench {
    fn drop(&mut self) {
        // SAFETY: each is freed once, the buffer before the context that describes it and the device last.
        unsafe {
            if !self.buffer.is_null() {
                sys::ggml_backend_buffer_free(self.buffer);
            }
            if !self.context.is_null() {
                sys::ggml_free(self.context);
            }
            sys::ggml_backend_free(self.backend);
        }
    }
}

/// One pass: every matrix times the same columns.
struct Work<'a> {
    bench: &'a Bench,
    context: *mut sys::ggml_context,
    graph: *mut sys::ggml_cgraph,
    buffer: sys::ggml_backend_buffer_t,
}

#[allow(unsafe_code)]
impl<'a> Work<'a> {
    fn new(bench: &'a Bench, columns: i64) -> Result<Self, String> {
        // SAFETY: as in `Bench::fill`; the graph and its tensors live in this context, and the weights outlive it
        // (`'a`).
        let (work, input) = unsafe {
            let context = sys::ggml_init(sys::ggml_init_params {
                mem_size: sys::ggml_tensor_overhead() * (MATRICES + 2) + sys::ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            });
            if context.is_null() {
                return Err("no memory for the measurement".into());
            }
            let input = sys::ggml_new_tensor_2d(context, sys::GGML_TYPE_F32, SIDE, columns);
            let graph = sys::ggml_new_graph(context);
            for weight in &bench.weights {
                let product = sys::ggml_mul_mat(context, *weight, input);
                sys::ggml_build_forward_expand(graph, product);
            }
            let buffer = sys::ggml_backend_alloc_ctx_tensors(context, bench.backend);
            let work = Self {
                bench,
                context,
                graph,
                buffer,
            };
            (work, input)
        };
        if work.buffer.is_null() {
            return Err("no memory for the measurement".into());
        }
        let values: Vec<f32> = (0..SIDE * columns)
            .map(|at| (at % 17) as f32 / 17.0 - 0.5)
            .collect();
        // SAFETY: the input is allocated and holds as many floats.
        unsafe {
            let bytes = values.len() * size_of::<f32>();
            sys::ggml_backend_tensor_set(input, values.as_ptr().cast(), 0, bytes);
        }
        Ok(work)
    }

    fn run(&self) -> Result<(), String> {
        // SAFETY: the graph's tensors are allocated on this back end or in a layout of its device.
        let status = unsafe {
            let status = sys::ggml_backend_graph_compute(self.bench.backend, self.graph);
            sys::ggml_backend_synchronize(self.bench.backend);
            status
        };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            _ => Err("the device failed while computing".into()),
        }
    }
}

#[allow(unsafe_code)]
impl Drop for Work<'_> {
    fn drop(&mut self) {
        // SAFETY: each is freed once, the buffer before the context that describes it.
        unsafe {
            if !self.buffer.is_null() {
                sys::ggml_backend_buffer_free(self.buffer);
            }
            sys::ggml_free(self.context);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            device: "a processor".into(),
            gpu: false,
            threads: 8,
            memory: 16 << 30,
            gpu_memory: 0,
            weight_bytes_per_second: 20e9,
            operations_per_second: 1e12,
        }
    }

    #[test]
    fn speed_follows_from_what_is_read_and_what_is_multiplied() {
        let dense = ModelSize {
            bytes: 5_000_000_000,
            parameters: 8_000_000_000,
            active: 8_000_000_000,
            kv_bytes_per_token: 131_072,
        };
        let likely = estimate(&machine(), &dense);
        assert_eq!(likely.fit, Fit::Whole);
        assert!((likely.decode - 20.0 / 5.25).abs() < 1e-9, "{likely:?}");
        assert!((likely.prefill - 43.75).abs() < 1e-9, "{likely:?}");
        let experts = ModelSize {
            active: 1_000_000_000,
            ..dense
        };
        let likely = estimate(&machine(), &experts);
        assert!((likely.decode - 20.0 / 0.875).abs() < 1e-9, "{likely:?}");
        let large = ModelSize {
            bytes: 40_000_000_000,
            ..dense
        };
        assert_eq!(estimate(&machine(), &large).fit, Fit::No);
        let with_gpu = Machine {
            gpu: true,
            gpu_memory: 8 << 30,
            ..machine()
        };
        assert_eq!(estimate(&with_gpu, &dense).fit, Fit::Whole);
        let medium = ModelSize {
            bytes: 12_000_000_000,
            ..dense
        };
        assert_eq!(estimate(&with_gpu, &medium).fit, Fit::Shared);
    }
}
