//! Python's pickle format, as far as checkpoints of tensors need it.
//!
//! A pickle is a program for a small stack machine that may call any Python function. This interpreter calls nothing:
//! it knows dictionaries, lists, tuples, text and numbers, and the few names with which PyTorch describes a tensor.
//! Whatever else a file asks for is refused by its name. Values live in one arena and refer to each other by index, so
//! neither deep nor cyclic structures can exhaust the call stack, and every size is bounded.
//!
//! Opcodes follow CPython's `pickletools` documentation (protocols 2 to 5).

use std::collections::HashMap;
use std::io::Read;

use safetensors::Dtype;

use crate::{Error, Result};

/// Longest pickle that is read; a checkpoint's has a few hundred bytes a tensor.
pub const MAX_BYTES: u64 = 64 << 20;
/// Most values, stack entries and memo entries each.
const MAX_VALUES: usize = 1 << 20;
/// Most dimensions of a tensor.
const MAX_DIMENSIONS: usize = 8;
/// Most items given to a dictionary as it is made (Python 2 did so; later versions add them one by one).
const MAX_DICT_ARGUMENTS: usize = 256;
/// Longest name of a module, a class or a storage.
const MAX_NAME: usize = 256;
/// Most dictionaries that wrap the tensors (`{"state_dict": {…}}`).
const MAX_WRAPPERS: usize = 4;
/// Keys under which training scripts put the tensors.
const WRAPPERS: [&str; 2] = ["state_dict", "controlnet"];

/// Names in published Stable Diffusion checkpoints that describe the training run, not tensors: what they build is
/// skipped over, never made and never looked at.
const TRAINING_RECORDS: [&str; 6] = [
    "_codecs.encode",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
];

type Id = u32;

/// A value on the machine's stack.
#[derive(Debug, Clone)]
enum Value {
    None,
    Bool(bool),
    Int(i128),
    Text(String),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Callable(Callable),
    Storage(StorageRef),
    Tensor(TensorRef),
    /// Something that no tensor depends on.
    Skipped,
}

/// The names that a pickle may ask for.
#[derive(Debug, Clone)]
enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(Dtype),
    TrainingRecord,
}

/// A run of elements somewhere outside the pickle.
#[derive(Debug, Clone, PartialEq)]
pub struct StorageRef {
    /// Element type.
    pub dtype: Dtype,
    /// Its name in the archive.
    pub key: String,
    /// Elements.
    pub elements: u64,
    /// First element that the reference means (views of legacy files; otherwise 0).
    pub offset: u64,
}

/// A tensor over a storage. Nothing about it is checked yet.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorRef {
    /// Where its elements are.
    pub storage: StorageRef,
    /// First element.
    pub offset: u64,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements to skip per step along each dimension.
    pub strides: Vec<usize>,
}

/// What a pickle described.
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Runs one pickle, up to its end mark.
    ///
    /// # Errors
    /// When it is malformed, too large, or asks for anything but tensors.
    pub fn read(input: impl Read) -> Result<Self> {
        Machine { input, consumed: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() }
            .run()
    }

    /// The tensors of a state dictionary, with wrappers such as `{"state_dict": …}` taken off.
    ///
    /// # Errors
    /// When the pickle holds something else.
    pub fn tensors(&self) -> Result<Vec<(&str, &TensorRef)>> {
        let mut root = self.root;
        for _ in 0..MAX_WRAPPERS {
            let wrapped = self.entries(root)?.iter().find(|(key, value)| {
                matches!(self.value(*key), Value::Text(t) if WRAPPERS.contains(&t.as_str()))
                    && matches!(self.value(*value), Value::Dict(_))
            });
            match wrapped {
                Some((_, inner)) => root = *inner,
                None => break,
            }
        }
        let tensors: Vec<_> = self
            .entries(root)?
            .iter()
            .filter_map(|(key, value)| match (self.value(*key), self.value(*value)) {
                (Value::Text(name), Value::Tensor(tensor)) => Some((name.as_str(), tensor)),
                _ => None,
            })
            .collect();
        if tensors.is_empty() {
            return Err(Error::input("the pickle holds no dictionary of tensors"));
        }
        Ok(tensors)
    }

    /// Every storage that the pickle names, also those of tensors that are not returned.
    pub fn storages(&self) -> impl Iterator<Item = &StorageRef> {
        self.values.iter().filter_map(|value| match value {
            Value::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The pickled integer, if it is one.
    pub fn integer(&self) -> Option<i128> {
        match self.value(self.root) {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A truth value of the pickled dictionary.
    pub fn flag(&self, name: &str) -> Option<bool> {
        self.entries(self.root).ok()?.iter().find_map(|(key, value)| match (self.value(*key), self.value(*value)) {
            (Value::Text(key), Value::Bool(flag)) if key == name => Some(*flag),
            _ => None,
        })
    }

    /// The pickled list of texts.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts(&self) -> Result<Vec<&str>> {
        let Value::List(items) = self.value(self.root) else { return Err(malformed("a list is missing")) };
        items
            .iter()
            .map(|id| match self.value(*id) {
                Value::Text(text) => Ok(text.as_str()),
                _ => Err(malformed("a list holds something other than text")),
            })
            .collect()
    }

    fn value(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::Skipped)
    }

    fn entries(&self, id: Id) -> Result<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(entries) => Ok(entries),
            _ => Err(Error::input("the pickle holds no dictionary of tensors")),
        }
    }
}

fn malformed(what: &str) -> Error {
    Error::input(format!("malformed pickle: {what}"))
}

fn refused(name: &str) -> Error {
    let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    Error::input(format!(
        "this pickle asks for '{name}', which no tensor needs; nothing of it was run. Get the file from its author as \
         .safetensors"
    ))
}

struct Machine<R> {
    input: R,
    consumed: u64,
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

impl<R: Read> Machine<R> {
    fn run(mut self) -> Result<Pickle> {
        loop {
            let [opcode] = self.array()?;
            match opcode {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { values: self.values, root });
                }
                // PROTO, FRAME: nothing to do for either
                0x80 => drop(self.array::<1>()?),
                0x95 => drop(self.array::<8>()?),
                b'(' => {
                    if self.marks.len() >= MAX_VALUES {
                        return Err(malformed("too many marks"));
                    }
                    self.marks.push(self.stack.len());
                }
                b'0' => drop(self.pop()?),
                b'1' => drop(self.pop_to_mark()?),
                b'2' => {
                    let top = *self.stack.last().ok_or_else(|| malformed("the stack is empty"))?;
                    self.push_id(top)?;
                }
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Bool(true))?,
                0x89 => self.push(Value::Bool(false))?,
                b'J' => {
                    let value = i32::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                b'K' => {
                    let [value] = self.array()?;
                    self.push(Value::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.array()?);
                    self.push(Value::Int(value.into()))?;
                }
                0x8a => {
                    let [length] = self.array()?;
                    self.long(length.into())?;
                }
                0x8b => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.long(length.into())?;
                }
                b'G' => {
                    self.array::<8>()?;
                    self.push(Value::Skipped)?;
                }
                b'X' | b'T' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.text(length.into())?;
                }
                0x8c | b'U' => {
                    let [length] = self.array()?;
                    self.text(length.into())?;
                }
                0x8d => {
                    let length = u64::from_le_bytes(self.array()?);
                    self.text(length)?;
                }
                b'C' => {
                    let [length] = self.array()?;
                    self.skip_bytes(length.into())?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.array()?);
                    self.skip_bytes(length.into())?;
                }
                0x8e | 0x96 => {
                    let length = u64::from_le_bytes(self.array()?);
                    self.skip_bytes(length)?;
                }
                b'}' => self.push(Value::Dict(Vec::new()))?,
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Dict(pairs(&items)?))?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.extend_dict(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.extend_dict(&items)?;
                }
                b']' => self.push(Value::List(Vec::new()))?,
                b'l' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::List(items))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend_list(&[item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.extend_list(&items)?;
                }
                b')' => self.push(Value::Tuple(Vec::new()))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push(Value::Tuple(items))?;
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let from = self.stack.len().checked_sub(count).ok_or_else(|| malformed("the stack is empty"))?;
                    self.check_mark(from)?;
                    let items = self.stack.split_off(from);
                    self.push(Value::Tuple(items))?;
                }
                b'h' => {
                    let [index] = self.array()?;
                    self.get(index.into())?;
                }
                b'j' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.get(index)?;
                }
                b'q' => {
                    let [index] = self.array()?;
                    self.put(index.into())?;
                }
                b'r' => {
                    let index = u32::from_le_bytes(self.array()?);
                    self.put(index)?;
                }
                0x94 => {
                    let index = u32::try_from(self.memo.len()).map_err(|_| malformed("too many memo entries"))?;
                    self.put(index)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (self.value(module), self.value(name)) else {
                        return Err(malformed("a name is not text"));
                    };
                    let (module, name) = (module.clone(), name.clone());
                    self.global(&module, &name)?;
                }
                // REDUCE and NEWOBJ: callable, arguments
                b'R' | 0x81 => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    self.call(callable, arguments)?;
                }
                // BUILD: gives an object its attributes, of which tensors have none
                b'b' => {
                    self.pop()?;
                    match self.stack.last().map(|id| self.value(*id)) {
                        Some(Value::Dict(_) | Value::Skipped | Value::Tensor(_)) => {}
                        _ => return Err(malformed("attributes for something that has none")),
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(Value::Storage(storage))?;
                }
                _ => return Err(malformed(&format!("unknown operation 0x{opcode:02x}"))),
            }
        }
    }

    fn take(&mut self, length: u64) -> Result<Vec<u8>> {
        if length > MAX_BYTES - self.consumed.min(MAX_BYTES) {
            return Err(malformed(&format!("longer than {MAX_BYTES} bytes")));
        }
        self.consumed += length;
        let mut bytes = Vec::new();
        self.input
            .by_ref()
            .take(length)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::failure(format!("cannot read the pickle: {e}")))?;
        if bytes.len() as u64 != length {
            return Err(malformed("it ends too early"));
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        if self.consumed + N as u64 > MAX_BYTES {
            return Err(malformed(&format!("longer than {MAX_BYTES} bytes")));
        }
        self.consumed += N as u64;
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|_| malformed("it ends too early"))?;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        loop {
            match self.array()? {
                [b'\n'] => return String::from_utf8(line).map_err(|_| malformed("a name is not UTF-8")),
                [byte] if line.len() < MAX_NAME => line.push(byte),
                _ => return Err(malformed("a name is too long")),
            }
        }
    }

    fn text(&mut self, length: u64) -> Result<()> {
        let bytes = self.take(length)?;
        // Python allows lone surrogates, and Python 2's strings any byte; no tensor's name has either.
        self.push(String::from_utf8(bytes).map_or(Value::Skipped, Value::Text))
    }

    fn skip_bytes(&mut self, length: u64) -> Result<()> {
        self.take(length)?;
        self.push(Value::Skipped)
    }

    /// A little-endian two's complement integer; one of more than 128 bits belongs to no tensor.
    fn long(&mut self, length: u64) -> Result<()> {
        let bytes = self.take(length)?;
        if bytes.len() > 16 {
            return self.push(Value::Skipped);
        }
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 16];
        extended[..bytes.len()].copy_from_slice(&bytes);
        self.push(Value::Int(i128::from_le_bytes(extended)))
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() >= MAX_VALUES {
            return Err(malformed(&format!("more than {MAX_VALUES} values")));
        }
        self.values.push(value);
        self.push_id((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<()> {
        if self.stack.len() >= MAX_VALUES {
            return Err(malformed(&format!("more than {MAX_VALUES} values")));
        }
        self.stack.push(id);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        self.check_mark(self.stack.len().saturating_sub(1))?;
        self.stack.pop().ok_or_else(|| malformed("the stack is empty"))
    }

    /// Operations may not reach below the last mark.
    fn check_mark(&self, from: usize) -> Result<()> {
        if self.marks.last().is_some_and(|mark| from < *mark) {
            return Err(malformed("a mark is in the way"));
        }
        Ok(())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| malformed("a mark is missing"))?;
        if mark > self.stack.len() {
            return Err(malformed("a mark is in the way"));
        }
        Ok(self.stack.split_off(mark))
    }

    fn value(&self, id: Id) -> &Value {
        self.values.get(id as usize).unwrap_or(&Value::Skipped)
    }

    fn top_mut(&mut self) -> Option<&mut Value> {
        let id = *self.stack.last()?;
        self.values.get_mut(id as usize)
    }

    fn extend_dict(&mut self, items: &[Id]) -> Result<()> {
        let mut added = pairs(items)?;
        match self.top_mut() {
            Some(Value::Dict(entries)) => entries.append(&mut added),
            Some(Value::Skipped) => {}
            _ => return Err(malformed("an entry for something that is no dictionary")),
        }
        Ok(())
    }

    fn extend_list(&mut self, items: &[Id]) -> Result<()> {
        match self.top_mut() {
            Some(Value::List(list)) => list.extend_from_slice(items),
            Some(Value::Skipped) => {}
            _ => return Err(malformed("an item for something that is no list")),
        }
        Ok(())
    }

    fn get(&mut self, index: u32) -> Result<()> {
        let id = *self.memo.get(&index).ok_or_else(|| malformed("a memo entry is missing"))?;
        self.push_id(id)
    }

    fn put(&mut self, index: u32) -> Result<()> {
        if self.memo.len() >= MAX_VALUES {
            return Err(malformed("too many memo entries"));
        }
        let id = *self.stack.last().ok_or_else(|| malformed("the stack is empty"))?;
        self.memo.insert(index, id);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<()> {
        let callable = match (module, name) {
            ("collections", "OrderedDict") => Callable::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Callable::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Callable::RebuildParameter,
            ("torch", name) if storage_type(name).is_some() => {
                Callable::StorageType(storage_type(name).unwrap_or(Dtype::U8))
            }
            _ if TRAINING_RECORDS.contains(&format!("{module}.{name}").as_str()) => Callable::TrainingRecord,
            _ => return Err(refused(&format!("{module}.{name}"))),
        };
        self.push(Value::Callable(callable))
    }

    fn call(&mut self, callable: Id, arguments: Id) -> Result<()> {
        let Value::Callable(callable) = self.value(callable) else {
            return Err(malformed("it calls something that is no name"));
        };
        let Value::Tuple(arguments) = self.value(arguments) else {
            return Err(malformed("the arguments are no tuple"));
        };
        let arguments = arguments.as_slice();
        let result = match callable {
            Callable::TrainingRecord => Value::Skipped,
            Callable::OrderedDict => match arguments {
                [] => Value::Dict(Vec::new()),
                [items] => Value::Dict(self.ordered_dict(*items)?),
                _ => return Err(malformed("a dictionary has wrong arguments")),
            },
            Callable::RebuildTensor => Value::Tensor(self.tensor(arguments)?),
            Callable::RebuildParameter => match arguments.first().map(|id| self.value(*id)) {
                Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                _ => return Err(malformed("a parameter holds no tensor")),
            },
            Callable::StorageType(_) => return Err(refused("a storage inside the pickle")),
        };
        self.push(result)
    }

    /// The items of `OrderedDict([(key, value), …])`.
    fn ordered_dict(&self, items: Id) -> Result<Vec<(Id, Id)>> {
        let Value::List(items) = self.value(items) else { return Err(malformed("a dictionary has wrong arguments")) };
        // A list can be named again and again, so copies of a long one could fill the memory.
        if items.len() > MAX_DICT_ARGUMENTS {
            return Err(malformed("a dictionary has too many arguments"));
        }
        items
            .iter()
            .map(|item| match self.value(*item) {
                Value::List(pair) | Value::Tuple(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
                _ => Err(malformed("a dictionary has wrong arguments")),
            })
            .collect()
    }

    /// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`
    fn tensor(&self, arguments: &[Id]) -> Result<TensorRef> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(malformed("a tensor has too few arguments"));
        };
        let Value::Storage(storage) = self.value(*storage) else {
            return Err(malformed("a tensor has no storage"));
        };
        Ok(TensorRef {
            storage: storage.clone(),
            offset: self.size(*offset)?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        })
    }

    /// `("storage", type, key, location, elements)`, in legacy files also `(view key, offset, size)` or None.
    fn storage(&self, id: Id) -> Result<StorageRef> {
        let wrong = || malformed("a storage has wrong arguments");
        let Value::Tuple(parts) = self.value(id) else { return Err(wrong()) };
        let [tag, dtype, key, _location, elements, view @ ..] = parts.as_slice() else { return Err(wrong()) };
        let (Value::Text(tag), Value::Callable(Callable::StorageType(dtype)), Value::Text(key)) =
            (self.value(*tag), self.value(*dtype), self.value(*key))
        else {
            return Err(wrong());
        };
        if tag != "storage" || key.len() > MAX_NAME {
            return Err(wrong());
        }
        let offset = match view.first().map(|id| self.value(*id)) {
            None | Some(Value::None) => 0,
            Some(Value::Tuple(view)) if view.len() == 3 => self.size(view[1])?,
            Some(_) => return Err(wrong()),
        };
        Ok(StorageRef { dtype: *dtype, key: key.clone(), elements: self.size(*elements)?, offset })
    }

    fn size(&self, id: Id) -> Result<u64> {
        match self.value(id) {
            Value::Int(value) => u64::try_from(*value).map_err(|_| malformed("a size is negative or too large")),
            _ => Err(malformed("a size is no number")),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let Value::Tuple(ids) = self.value(id) else { return Err(malformed("a shape is no tuple")) };
        if ids.len() > MAX_DIMENSIONS {
            return Err(malformed(&format!("a tensor has more than {MAX_DIMENSIONS} dimensions")));
        }
        ids.iter()
            .map(|id| usize::try_from(self.size(*id)?).map_err(|_| malformed("a size is negative or too large")))
            .collect()
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed("a key has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

/// The element type of `torch.FloatStorage` and its like.
fn storage_type(name: &str) -> Option<Dtype> {
    Some(match name {
        "DoubleStorage" => Dtype::F64,
        "FloatStorage" => Dtype::F32,
        "HalfStorage" => Dtype::F16,
        "BFloat16Storage" => Dtype::BF16,
        "LongStorage" => Dtype::I64,
        "IntStorage" => Dtype::I32,
        "ShortStorage" => Dtype::I16,
        "CharStorage" => Dtype::I8,
        "ByteStorage" => Dtype::U8,
        "BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}
