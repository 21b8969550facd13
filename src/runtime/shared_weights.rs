//! Weights that networks of one engine share: values are on the device once, whichever networks read them, and in
//! whichever shapes.
//!
//! ONNX Runtime computes with such a tensor where it lies. It never sees the values when it loads a network, so only
//! those tensors are shared that nothing looks at before a run ([`Folded::shareable`]).

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, c_void};
use std::path::Path;
use std::ptr::with_exposed_provenance_mut;
use std::sync::{Arc, Mutex, Weak};

use half::f16;
use motionclone_onnx::graph::fold::{self, Folded};
use ort::AsPointer;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::SessionBuilder;
use ort::value::{DynValue, Shape, Tensor, TensorRefMut};

use crate::error::{Error, Result};
use crate::runtime::device::DeviceGuard;
use crate::runtime::kernels::{CudaDevice, DeviceMemory};
use crate::runtime::options::{RunSettings, failure};
use crate::sync::lock;

/// Storages on the device by key; freed with the last network that reads them.
pub struct SharedWeights {
    cuda: Option<i32>,
    budget: Option<u64>,
    storages: Mutex<HashMap<String, Weak<Storage>>>,
}

/// Weights of one network besides those of its file.
#[derive(Default)]
pub struct Weights {
    own: Vec<(String, DynValue)>,
    shared: Vec<SharedTensor>,
}

/// A storage in the shape in which a session reads it where it lies.
struct SharedTensor {
    name: CString,
    /// Before the storage.
    value: TensorRefMut<'static, f16>,
    _storage: Arc<Storage>,
}

/// Memory that holds a tensor's values.
enum Storage {
    /// The address of the values, which stay where they are.
    Host {
        address: usize,
        _values: Vec<f16>,
    },
    Device(DeviceMemory),
}

impl Storage {
    fn address(&self) -> *mut c_void {
        match self {
            Self::Host { address, .. } => with_exposed_provenance_mut(*address),
            Self::Device(memory) => memory.address(),
        }
    }
}

impl SharedWeights {
    /// No tensors yet. They will lie where networks with these settings run.
    pub fn new(settings: &RunSettings) -> Self {
        Self { cuda: settings.cuda, budget: settings.budget, storages: Mutex::default() }
    }

    /// The weights of a network. Those that another network shares are taken as they are; the others are read from the
    /// weight file and made.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no memory for a tensor.
    pub fn weights(&self, tensors: &[Folded], file: &Path) -> Result<Weights> {
        let _guard = DeviceGuard::shared(self.cuda);
        let (shareable, own): (Vec<&Folded>, Vec<&Folded>) = tensors.iter().partition(|tensor| tensor.shareable);
        let mut taken: HashMap<&str, Arc<Storage>> = HashMap::new();
        let (mut missing, mut seen) = (Vec::new(), HashSet::new());
        {
            let mut there = lock(&self.storages);
            there.retain(|_, storage| storage.strong_count() > 0);
            for tensor in &shareable {
                if !seen.insert(&tensor.numbers) {
                    continue;
                }
                match there.get(&tensor.numbers).and_then(Weak::upgrade) {
                    Some(storage) => drop(taken.insert(&tensor.numbers, storage)),
                    None => missing.push(*tensor),
                }
            }
        }
        let made = fold::make(&missing, file, |tensor, values| self.place(tensor, values).map(Arc::new))?;
        let mut there = lock(&self.storages);
        for (tensor, storage) in missing.iter().zip(made) {
            there.insert(tensor.numbers.clone(), Arc::downgrade(&storage));
            taken.insert(&tensor.numbers, storage);
        }
        drop(there);
        let shared = shareable.iter().map(|tensor| self.shaped(tensor, taken[tensor.numbers.as_str()].clone()));
        let shared = shared.collect::<Result<Vec<_>>>()?;
        let own = fold::make(&own, file, |tensor, values| {
            let value = Tensor::from_array((tensor.shape.clone(), values)).map_err(|e| self.failed(tensor, &e))?;
            Ok((tensor.name.clone(), value.into_dyn()))
        })?;
        Ok(Weights { own, shared })
    }

    fn place(&self, tensor: &Folded, mut values: Vec<f16>) -> Result<Storage> {
        match self.cuda {
            Some(number) => {
                let memory = CudaDevice::get(number).and_then(|device| DeviceMemory::holding(device, &values));
                Ok(Storage::Device(memory.map_err(|e| self.failed(tensor, &e))?))
            }
            // Moving the vector does not move its values.
            None => Ok(Storage::Host { address: values.as_mut_ptr().expose_provenance(), _values: values }),
        }
    }

    fn shaped(&self, tensor: &Folded, storage: Arc<Storage>) -> Result<SharedTensor> {
        let name = CString::new(tensor.name.as_str()).map_err(|e| self.failed(tensor, &e))?;
        let (device, number) = self.cuda.map_or((AllocationDevice::CPU, 0), |number| (AllocationDevice::CUDA, number));
        let info = MemoryInfo::new(device, number, AllocatorType::Device, MemoryType::Default);
        let info = info.map_err(|e| self.failed(tensor, &e))?;
        let shape = Shape::new(tensor.shape.iter().map(|length| *length as i64));
        // SAFETY: the memory is of that device and holds as many values as the shape says: changes of shape do not change
        // their count. It stays in place, and is freed behind the value, which is dropped before it.
        let value = unsafe { TensorRefMut::from_raw(info, storage.address(), shape) };
        Ok(SharedTensor { name, value: value.map_err(|e| self.failed(tensor, &e))?, _storage: storage })
    }

    fn failed(&self, tensor: &Folded, e: &dyn std::fmt::Display) -> Error {
        failure(&format!("cannot make the weight '{}'", tensor.name), &e.to_string(), self.budget)
    }
}

impl Weights {
    /// Whether there are any that other networks may share.
    pub(crate) fn are_shared(&self) -> bool {
        !self.shared.is_empty()
    }

    /// Gives them to a session that is to be made. They must stay until it is gone.
    pub(crate) fn give(&mut self, mut builder: SessionBuilder) -> ort::Result<SessionBuilder> {
        for (name, tensor) in self.own.drain(..) {
            builder = builder.with_external_initializer(name, tensor)?;
        }
        for tensor in &self.shared {
            let (options, value) = (builder.ptr_mut(), tensor.value.ptr());
            // SAFETY: the options and the value are ONNX Runtime's own, the name ends with a zero. The value stays as
            // long as the session, with the network that holds both.
            let status = unsafe { (ort::api().AddInitializer)(options, tensor.name.as_ptr(), value) };
            // SAFETY: the status is what ONNX Runtime just gave, and is looked at once.
            unsafe { ort::Error::result_from_status(status) }?;
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use motionclone_onnx::graph::{Element, Graph, Layout, Op, write};
    use motionclone_onnx::weights::WeightIndex;
    use ndarray::{ArrayD, IxDyn};
    use safetensors::{Dtype, tensor::TensorView};

    use super::*;
    use crate::cancel::Cancel;
    use crate::runtime::library::Runtime;
    use crate::runtime::network::Network;
    use crate::runtime::tensor::Input;

    const FILE: &str = "weights.safetensors";

    /// A file with one matrix of 64 rows and columns, whose numbers are eighths.
    fn weight_file(folder: &Path) -> WeightIndex {
        let bytes: Vec<u8> = (0..64 * 64).flat_map(|at| ((at % 31) as f32 / 8.0).to_le_bytes()).collect();
        let matrix = TensorView::new(Dtype::F32, vec![64, 64], &bytes).unwrap();
        safetensors::serialize_to_file([("matrix", matrix)], None, &folder.join(FILE)).unwrap();
        WeightIndex::open(&folder.join(FILE)).unwrap()
    }

    /// y = x · matrixᵀ, and with `more` · matrix again, by way of the turned matrix.
    fn graph(weights: &WeightIndex, more: bool) -> Graph {
        let mut g = Graph::new("products", Element::Float16, Layout::ChannelsLast);
        let x = g.input("x", Element::Float32, &[2, 64]);
        let x = g.cast(x, Element::Float16).unwrap();
        let matrix = g.weight("matrix", weights.require("matrix").unwrap()).unwrap();
        let matrix = g.cast(matrix, Element::Float16).unwrap();
        let mut y = g.node(Op::Gemm { transpose: true }, &[x, matrix]).unwrap();
        if more {
            let turned = g.transpose(matrix, &[1, 0]).unwrap();
            y = g.node(Op::Gemm { transpose: true }, &[y, turned]).unwrap();
        }
        let y = g.cast(y, Element::Float32).unwrap();
        g.output("y", y);
        g
    }

    fn load(graph: &Graph, folder: &Path, weights: Weights) -> Result<Network> {
        let model = write::to_onnx(graph, FILE, write::Shapes::Known)?;
        let settings = RunSettings { threads: Some(1), ..Default::default() };
        Network::load_with(Runtime::load(None)?, "products", &model, folder, weights, &settings)
    }

    /// Row 0 is the unit vector of the first column, row 1 zeros.
    fn run(network: &mut Network) -> ArrayD<f32> {
        let mut x = ArrayD::zeros(IxDyn(&[2, 64]));
        x[[0, 0]] = 1.0;
        network.run(&[("x", Input::Array(&x))], &Cancel::default()).unwrap().array("y").unwrap()
    }

    #[test]
    fn networks_take_what_is_there_and_free_what_none_reads() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join(FILE));
        let index = weight_file(folder);
        let pool = SharedWeights::new(&RunSettings::default());
        let there = || lock(&pool.storages).values().filter(|storage| storage.strong_count() > 0).count();

        let (small, small_tensors) = fold::weights(&graph(&index, false)).unwrap();
        let (large, large_tensors) = fold::weights(&graph(&index, true)).unwrap();
        let names = |tensors: &[Folded]| -> Vec<String> { tensors.iter().map(|t| t.name.clone()).collect() };
        assert_eq!(names(&small_tensors), ["matrix|half"]);
        assert_eq!(names(&large_tensors), ["matrix|half", "matrix|half|turned 1 0"]);
        assert!(large_tensors.iter().all(|tensor| tensor.shareable && tensor.length() == 8192));

        let mut first = load(&large, folder, pool.weights(&large_tensors, &file).unwrap()).unwrap();
        assert_eq!(there(), 2);
        // Nothing is read where all is there.
        std::fs::write(&file, "").unwrap();
        let weights = pool.weights(&small_tensors, &file).unwrap();
        let shared = lock(&pool.storages)["matrix|half"].upgrade().unwrap();
        assert!(Arc::ptr_eq(&shared, &weights.shared[0]._storage));
        let mut second = load(&small, folder, weights).unwrap();
        assert_eq!(there(), 2);
        let column: Vec<f32> = (0..64).map(|row| (64 * row % 31) as f32 / 8.0).collect();
        assert_eq!(run(&mut second).iter().copied().take(64).collect::<Vec<_>>(), column);

        // Both compute with the numbers where they lie.
        let before = run(&mut first);
        let place = shared.address().cast::<f16>();
        // SAFETY: the tensor has numbers there, and no network runs.
        unsafe { place.write(f16::from_f32(100.0)) };
        assert_eq!(run(&mut second)[[0, 0]], 100.0);
        assert_ne!(run(&mut first), before);
        drop(shared);

        drop(first);
        assert_eq!(there(), 1);
        drop(second);
        assert_eq!(there(), 0);
        let gone = pool.weights(&small_tensors, &file).err().unwrap().to_string();
        assert!(gone.contains(FILE), "{gone}");
    }

    #[test]
    fn tensors_of_other_shapes_have_the_same_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let (folder, file) = (folder.path(), folder.path().join(FILE));
        let index = weight_file(folder);
        let mut g = graph(&index, false);
        let x = g.inputs()[0];
        let x = g.cast(x, Element::Float16).unwrap();
        let x = g.reshape(x, &[1, 128]).unwrap();
        let matrix = g.weight("matrix", index.require("matrix").unwrap()).unwrap();
        let matrix = g.cast(matrix, Element::Float16).unwrap();
        let wide = g.reshape(matrix, &[32, 128]).unwrap();
        let z = g.node(Op::Gemm { transpose: true }, &[x, wide]).unwrap();
        let z = g.cast(z, Element::Float32).unwrap();
        g.output("z", z);
        let (g, tensors) = fold::weights(&g).unwrap();
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["matrix|half", "matrix|half|reshaped 32 128"]);
        assert!(tensors.iter().all(|tensor| tensor.shareable && tensor.numbers == "matrix|half"));

        let pool = SharedWeights::new(&RunSettings::default());
        let mut network = load(&g, folder, pool.weights(&tensors, &file).unwrap()).unwrap();
        assert_eq!(lock(&pool.storages).len(), 1);
        let mut x = ArrayD::zeros(IxDyn(&[2, 64]));
        x[[0, 0]] = 1.0;
        let outputs = network.run(&[("x", Input::Array(&x))], &Cancel::default()).unwrap();
        let numbers =
            |step: usize, count: usize| (0..count).map(|at| (step * at % 31) as f32 / 8.0).collect::<Vec<_>>();
        assert_eq!(outputs.array("y").unwrap().into_raw_vec_and_offset().0[..64], numbers(64, 64));
        assert_eq!(outputs.array("z").unwrap().into_raw_vec_and_offset().0, numbers(128, 32));
    }

    #[test]
    fn a_network_does_not_load_without_the_weights_that_are_to_be_given() {
        let folder = tempfile::tempdir().unwrap();
        let index = weight_file(folder.path());
        let (graph, tensors) = fold::weights(&graph(&index, false)).unwrap();
        let refused = load(&graph, folder.path(), Weights::default()).err().unwrap().to_string();
        assert!(refused.contains("matrix|half"), "{refused}");
        let pool = SharedWeights::new(&RunSettings::default());
        load(&graph, folder.path(), pool.weights(&tensors, &folder.path().join(FILE)).unwrap()).unwrap();
    }

    #[test]
    fn what_a_network_may_look_at_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let index = weight_file(folder.path());
        let mut g = graph(&index, false);
        let matrix = g.weight("matrix", index.require("matrix").unwrap()).unwrap();
        let matrix = g.cast(matrix, Element::Float16).unwrap();
        let sum = g.add(matrix, matrix).unwrap();
        let sum = g.cast(sum, Element::Float32).unwrap();
        g.output("sum", sum);
        let (graph, tensors) = fold::weights(&g).unwrap();
        assert!(!tensors[0].shareable);
        let weights = SharedWeights::new(&RunSettings::default()).weights(&tensors, &folder.path().join(FILE)).unwrap();
        assert_eq!((weights.own.len(), weights.shared.len()), (1, 0));
        let mut network = load(&graph, folder.path(), weights).unwrap();
        assert_eq!(run(&mut network)[[0, 1]], 64.0 % 31.0 / 8.0);
    }
}
