//! A pickle machine that builds only plain data and descriptions of tensors.
//!
//! It supports the opcodes that `torch.save` writes, with protocols 2 to 4 (Python, `Lib/pickletools.py`). A pickle
//! may call only the names in [`CALLS`]. Every other name is refused with an error that names it, before anything is
//! done with it.

use std::collections::BTreeMap;
use std::rc::Rc;

use tch::Kind;

use super::super::error::WeightsProblem;
use super::{format, kind_of};

/// The functions that a pickle may call. They make a dict, or a tensor from a storage.
const CALLS: [&str; 4] = [
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
];
/// The largest number of objects on the stack. A pickle with more is refused.
const MAX_STACK: usize = 1 << 20;

/// A tensor as the pickle describes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rebuilt {
    pub(super) key: String,
    pub(super) kind: Kind,
    /// The first element, counted in elements of the storage.
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
}

/// An object of a pickle. Tuples, lists and dicts (keys and values alternate) are indices into a [`Heap`]. So a
/// pickle can nest or share them to any depth, and dropping them needs no recursion.
#[derive(Clone, Debug)]
pub(super) enum Object {
    Nothing,
    /// A number or text that a state dict does not need.
    Other,
    Int(i64),
    Text(Rc<str>),
    Tuple(usize),
    List(usize),
    Dict(usize),
    /// A function or class, as `module.name`.
    Name(Rc<str>),
    Storage(Rc<str>, Kind),
    Tensor(Rc<Rebuilt>),
    Mark,
}

/// The contents of all tuples, lists and dicts of a pickle.
#[derive(Debug, Default)]
struct Heap(Vec<Vec<Object>>);

impl Heap {
    fn add(&mut self, items: Vec<Object>) -> usize {
        self.0.push(items);
        self.0.len() - 1
    }
}

/// The result of running a pickle.
#[derive(Debug)]
pub(super) struct Pickled {
    root: Object,
    heap: Heap,
    /// The length of the pickle in bytes.
    pub(super) length: usize,
}

impl Pickled {
    /// The tensors by name: those of the root dict, or of the first dict under one of the keys `holders` that has
    /// tensors.
    pub(super) fn tensors(&self, holders: &[&str]) -> Vec<(String, Rc<Rebuilt>)> {
        let found = self.tensors_of(&self.root);
        if !found.is_empty() {
            return found;
        }
        let held = holders.iter().filter_map(|holder| {
            let mut pairs = self.pairs(&self.root);
            let found = pairs.find(|(key, _)| matches!(key, Object::Text(text) if **text == **holder));
            found.map(|(_, value)| self.tensors_of(value))
        });
        held.into_iter()
            .find(|tensors| !tensors.is_empty())
            .unwrap_or_default()
    }

    fn pairs(&self, object: &Object) -> impl Iterator<Item = (&Object, &Object)> {
        let items: &[Object] = match object {
            Object::Dict(place) => &self.heap.0[*place],
            _ => &[],
        };
        items.chunks_exact(2).map(|pair| (&pair[0], &pair[1]))
    }

    fn tensors_of(&self, object: &Object) -> Vec<(String, Rc<Rebuilt>)> {
        let tensor = |(key, value): (&Object, &Object)| match (key, value) {
            (Object::Text(name), Object::Tensor(rebuilt)) => Some((name.to_string(), rebuilt.clone())),
            _ => None,
        };
        self.pairs(object).filter_map(tensor).collect()
    }

    /// The items of the root, if it is a list of text.
    pub(super) fn texts(&self) -> Option<Vec<String>> {
        let Object::List(place) = &self.root else {
            return None;
        };
        let text = |item: &Object| match item {
            Object::Text(text) => Some(text.to_string()),
            _ => None,
        };
        self.heap.0[*place].iter().map(text).collect()
    }
}

/// The state of a running pickle.
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Object>,
    memo: BTreeMap<u32, Object>,
    heap: Heap,
}

type Step<T> = Result<T, WeightsProblem>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Machine<'a> {
        Machine {
            bytes,
            at: 0,
            stack: Vec::new(),
            memo: BTreeMap::new(),
            heap: Heap::default(),
        }
    }

    /// Runs the pickle to its end.
    pub(super) fn run(mut self) -> Step<Pickled> {
        loop {
            let place = self.at;
            let [code] = self.take()?;
            match code {
                0x80 => drop(self.take::<1>()?),
                0x95 => drop(self.take::<8>()?),
                b'.' => {
                    return Ok(Pickled {
                        root: self.pop()?,
                        heap: self.heap,
                        length: self.at,
                    });
                }
                b'(' => self.push(Object::Mark)?,
                b'0' => drop(self.pop()?),
                b'N' => self.push(Object::Nothing)?,
                0x88 | 0x89 => self.push(Object::Other)?,
                b'K' => {
                    let [value] = self.take()?;
                    self.push(Object::Int(value.into()))?;
                }
                b'M' => {
                    let value = u16::from_le_bytes(self.take()?);
                    self.push(Object::Int(value.into()))?;
                }
                b'J' => {
                    let value = i32::from_le_bytes(self.take()?);
                    self.push(Object::Int(value.into()))?;
                }
                0x8a => {
                    let [length] = self.take()?;
                    let value = long(self.slice(length.into())?);
                    self.push(value)?;
                }
                b'G' => {
                    self.take::<8>()?;
                    self.push(Object::Other)?;
                }
                b'X' | b'T' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.text(length as usize)?;
                }
                0x8c | b'U' => {
                    let [length] = self.take()?;
                    self.text(length.into())?;
                }
                b'B' => {
                    let length = u32::from_le_bytes(self.take()?);
                    self.slice(length as usize)?;
                    self.push(Object::Other)?;
                }
                b'C' => {
                    let [length] = self.take()?;
                    self.slice(length.into())?;
                    self.push(Object::Other)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.push(Object::Name(format!("{module}.{name}").into()))?;
                }
                0x93 => match (self.pop()?, self.pop()?) {
                    (Object::Text(name), Object::Text(module)) => {
                        self.push(Object::Name(format!("{module}.{name}").into()))?;
                    }
                    _ => return Err(self.odd(place, code)),
                },
                b'}' => {
                    let place = self.heap.add(Vec::new());
                    self.push(Object::Dict(place))?;
                }
                b']' => {
                    let place = self.heap.add(Vec::new());
                    self.push(Object::List(place))?;
                }
                b')' => self.tuple(Vec::new())?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.tuple(items)?;
                }
                0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let from = self.stack.len().checked_sub(count);
                    let from = from.ok_or_else(|| self.odd(place, code))?;
                    let items = self.stack.split_off(from);
                    self.tuple(items)?;
                }
                b'q' => {
                    let [key] = self.take()?;
                    self.remember(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.remember(key)?;
                }
                0x94 => self.remember(self.memo.len() as u32)?,
                b'h' => {
                    let [key] = self.take()?;
                    self.recall(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.take()?);
                    self.recall(key)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(items)?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?;
                }
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(&id).ok_or_else(|| self.odd(place, code))?;
                    self.push(storage)?;
                }
                b'R' | 0x81 => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let made = self.call(&callee, &arguments)?;
                    self.push(made)?;
                }
                // The state to set is the `_metadata` of a state dict, which has the versions of its modules. It is
                // not needed.
                b'b' => drop(self.pop()?),
                _ => return Err(self.odd(place, code)),
            }
        }
    }

    fn odd(&self, place: usize, code: u8) -> WeightsProblem {
        format(format!(
            "pickle byte {place} is {code:#04x}, expected what a state dict of tensors is made of"
        ))
    }

    fn slice(&mut self, length: usize) -> Step<&'a [u8]> {
        let ends = || format("the pickle ends too early");
        let slice = self.bytes.get(self.at..).and_then(|rest| rest.get(..length));
        self.at += length;
        slice.ok_or_else(ends)
    }

    fn take<const N: usize>(&mut self) -> Step<[u8; N]> {
        let slice = self.slice(N)?;
        Ok(slice.try_into().expect("it is of that length"))
    }

    fn line(&mut self) -> Step<String> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| format("the pickle ends too early"))?;
        let line = String::from_utf8_lossy(self.slice(length)?).into_owned();
        self.at += 1;
        Ok(line)
    }

    fn text(&mut self, length: usize) -> Step<()> {
        let text = String::from_utf8_lossy(self.slice(length)?);
        self.push(Object::Text(text.into()))
    }

    fn push(&mut self, object: Object) -> Step<()> {
        if self.stack.len() >= MAX_STACK {
            return Err(format(format!("the pickle stacks more than {MAX_STACK} objects")));
        }
        self.stack.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Step<Object> {
        self.stack
            .pop()
            .ok_or_else(|| format("the pickle takes from an empty stack"))
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Object>> {
        let mark = self.stack.iter().rposition(|item| matches!(item, Object::Mark));
        let mark = mark.ok_or_else(|| format("the pickle has no mark where one is needed"))?;
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn remember(&mut self, key: u32) -> Step<()> {
        let top = self.stack.last().cloned();
        let top = top.ok_or_else(|| format("the pickle takes from an empty stack"))?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Step<()> {
        let found = self.memo.get(&key).cloned();
        let found = found.ok_or_else(|| format(format!("the pickle recalls {key}, which it never kept")))?;
        self.push(found)
    }

    fn set(&mut self, items: Vec<Object>) -> Step<()> {
        match self.stack.last() {
            Some(Object::Dict(place)) if items.len().is_multiple_of(2) => {
                self.heap.0[*place].extend(items);
                Ok(())
            }
            _ => Err(format("the pickle sets an item of what is no dict")),
        }
    }

    fn append(&mut self, items: Vec<Object>) -> Step<()> {
        match self.stack.last() {
            Some(Object::List(place)) => {
                self.heap.0[*place].extend(items);
                Ok(())
            }
            _ => Err(format("the pickle appends to what is no list")),
        }
    }

    fn tuple(&mut self, items: Vec<Object>) -> Step<()> {
        let place = self.heap.add(items);
        self.push(Object::Tuple(place))
    }

    fn items(&self, object: &Object) -> Option<&[Object]> {
        match object {
            Object::Tuple(place) => Some(&self.heap.0[*place]),
            _ => None,
        }
    }

    fn ints(&self, object: &Object) -> Option<Vec<i64>> {
        self.items(object)?.iter().map(int).collect()
    }

    /// Makes a storage from `('storage', torch.FloatStorage, key, location, elements)`.
    fn storage(&self, id: &Object) -> Option<Object> {
        match self.items(id)? {
            [Object::Text(what), Object::Name(class), Object::Text(key), ..] if **what == *"storage" => {
                let kind = kind_of(class.strip_prefix("torch.")?)?;
                Some(Object::Storage(key.clone(), kind))
            }
            _ => None,
        }
    }

    /// Makes the result of a function of [`CALLS`].
    fn call(&mut self, callee: &Object, arguments: &Object) -> Step<Object> {
        let Object::Name(name) = callee else {
            return Err(format("the pickle calls what is no function"));
        };
        if !CALLS.contains(&&**name) {
            return Err(WeightsProblem::Call {
                found: name.to_string(),
            });
        }
        let wrong = || format(format!("`{name}` has other arguments than PyTorch gives it"));
        match (&**name, self.items(arguments).ok_or_else(wrong)?) {
            ("collections.OrderedDict", []) => Ok(Object::Dict(self.heap.add(Vec::new()))),
            ("torch._utils._rebuild_parameter", [tensor @ Object::Tensor(_), ..]) => Ok(tensor.clone()),
            (_, [Object::Storage(key, kind), offset, size, stride, ..]) => {
                Ok(Object::Tensor(Rc::new(Rebuilt {
                    key: key.to_string(),
                    kind: *kind,
                    offset: int(offset).ok_or_else(wrong)?,
                    size: self.ints(size).ok_or_else(wrong)?,
                    stride: self.ints(stride).ok_or_else(wrong)?,
                })))
            }
            _ => Err(wrong()),
        }
    }
}

fn int(object: &Object) -> Option<i64> {
    match object {
        Object::Int(value) => Some(*value),
        _ => None,
    }
}

/// Makes a little-endian whole number. A number that does not fit into an i64 is not needed here.
fn long(bytes: &[u8]) -> Object {
    if bytes.len() > 8 {
        return Object::Other;
    }
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(wide))
}
