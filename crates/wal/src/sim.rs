//! A disk for tests: it forgets what was not synced, fails when told to, and can be full.
//!
//! A crash keeps, of everything not synced, what a seeded coin says: whole writes, halves of them, or nothing; created, renamed and removed names
//! that `sync_dir` did not cover come and go the same way. After a failed sync the bytes stay readable but are never made durable, as Linux does it.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile, DiskUsage};

/// Torn writes end at a multiple of this.
const SECTOR_BYTES: usize = 16;

#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<Sim>>);

#[derive(Default)]
struct Sim {
    files: BTreeMap<u64, SimFileState>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    locked: BTreeMap<PathBuf, Arc<AtomicBool>>,
    /// Raised by a crash or a kill: files opened before are dead.
    generation: u64,
    fail_at: Option<(u64, io::ErrorKind)>,
    n_operations: u64,
    capacity_bytes: Option<u64>,
    /// Used by others.
    other_bytes: u64,
}

#[derive(Clone, Default)]
struct SimFileState {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                if let Some(place) = bytes.get_mut(*offset..end) {
                    place.copy_from_slice(data);
                }
            }
            Self::Size(size) => bytes.resize(*size, 0),
        }
    }
}

impl Sim {
    /// Every operation that changes something passes here.
    fn operation(&mut self) -> io::Result<()> {
        self.n_operations += 1;
        match self.fail_at {
            Some((at, kind)) if at == self.n_operations => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn end_process(&mut self) {
        for (_, lock) in std::mem::take(&mut self.locked) {
            lock.store(false, Ordering::SeqCst);
        }
        self.generation += 1;
        self.fail_at = None;
    }

    fn used_bytes(&self) -> u64 {
        let files = self.names.values().filter_map(|i| self.files.get(i));
        self.other_bytes + files.map(|file| file.current.len() as u64).sum::<u64>()
    }

    fn check_space(&self, more: usize) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if capacity < self.used_bytes() + more as u64 => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

/// A small generator of coins, so that a seed tells the whole story.
struct Coins(u64);

impl Coins {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl SimDisk {
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Sim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `n`-th changing operation from now fails (1 is the next one).
    pub fn fail_at(&self, n: u64, kind: io::ErrorKind) {
        let mut sim = self.lock();
        sim.fail_at = Some((sim.n_operations + n, kind));
    }

    pub fn fail_never(&self) {
        self.lock().fail_at = None;
    }

    pub fn n_operations(&self) -> u64 {
        self.lock().n_operations
    }

    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        self.lock().capacity_bytes = capacity_bytes;
    }

    /// What others take of the capacity.
    pub fn set_other_bytes(&self, other_bytes: u64) {
        self.lock().other_bytes = other_bytes;
    }

    /// Power off and on: what is not durable is gone, or not, as the coins say; seed 0 loses all of it. Locks are free again.
    pub fn crash(&self, seed: u64) {
        let mut coins = Coins(seed);
        let mut sim = self.lock();
        sim.end_process();
        let mut names = sim.durable_names.clone();
        let all: Vec<PathBuf> = sim.names.keys().chain(names.keys()).cloned().collect();
        for name in all {
            if seed != 0 && coins.next().is_multiple_of(2) {
                match sim.names.get(&name).copied() {
                    Some(inode) => names.insert(name, inode),
                    None => names.remove(&name),
                };
            }
        }
        for file in sim.files.values_mut() {
            for change in std::mem::take(&mut file.pending) {
                match (seed, coins.next() % 3) {
                    (0, _) | (_, 0) => {}
                    (_, 1) => change.apply(&mut file.durable),
                    _ => tear(&change, &mut coins).apply(&mut file.durable),
                }
            }
            file.current = file.durable.clone();
        }
        sim.names = names.clone();
        sim.durable_names = names;
    }

    /// kill -9: nothing is lost but the lock.
    pub fn kill(&self) {
        let mut sim = self.lock();
        sim.end_process();
    }

    pub fn file_names(&self) -> Vec<PathBuf> {
        self.lock().names.keys().cloned().collect()
    }

    /// The bytes of a file, as they are now and durable.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let sim = self.lock();
        let file = sim.names.get(path).and_then(|inode| sim.files.get(inode));
        file.map(|file| file.current.clone()).unwrap_or_default()
    }

    /// Puts a durable file there.
    pub fn set_bytes(&self, path: &Path, bytes: &[u8]) {
        let mut sim = self.lock();
        sim.next_inode += 1;
        let inode = sim.next_inode;
        let file = SimFileState {
            current: bytes.to_vec(),
            durable: bytes.to_vec(),
            pending: Vec::new(),
        };
        sim.files.insert(inode, file);
        sim.names.insert(path.to_owned(), inode);
        sim.durable_names.insert(path.to_owned(), inode);
    }
}

fn tear(change: &Change, coins: &mut Coins) -> Change {
    match change {
        Change::Size(size) => Change::Size(*size),
        Change::Write(offset, data) => {
            let n_sectors = data.len().div_ceil(SECTOR_BYTES) as u64;
            let kept = usize::try_from(coins.next() % n_sectors.max(1)).unwrap_or(0) * SECTOR_BYTES;
            // The first or the last part reaches the disk: sectors have no order.
            if coins.next().is_multiple_of(2) {
                Change::Write(*offset, data.get(..kept).unwrap_or_default().to_vec())
            } else {
                let rest = data.get(kept..).unwrap_or_default().to_vec();
                Change::Write(offset + kept, rest)
            }
        }
    }
}

struct LockGuard(Arc<AtomicBool>);

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut sim = self.lock();
        let held = sim.locked.get(dir);
        if held.is_some_and(|held| held.load(Ordering::SeqCst)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let held = Arc::new(AtomicBool::new(true));
        sim.locked.insert(dir.to_owned(), Arc::clone(&held));
        Ok(Box::new(LockGuard(held)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let sim = self.lock();
        let inside = sim.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut sim = self.lock();
        sim.operation()?;
        if sim.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        sim.next_inode += 1;
        let inode = sim.next_inode;
        sim.files.insert(inode, SimFileState::default());
        sim.names.insert(path.to_owned(), inode);
        let generation = sim.generation;
        Ok(Arc::new(SimFile(self.clone(), inode, generation)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let sim = self.lock();
        match sim.names.get(path) {
            Some(inode) => Ok(Arc::new(SimFile(self.clone(), *inode, sim.generation))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut sim = self.lock();
        sim.operation()?;
        match sim.names.remove(from) {
            Some(inode) => {
                sim.names.insert(to.to_owned(), inode);
                Ok(())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut sim = self.lock();
        sim.operation()?;
        match sim.names.remove(path) {
            Some(_) => Ok(()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut sim = self.lock();
        sim.operation()?;
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        let mut durable = std::mem::take(&mut sim.durable_names);
        durable.retain(|path, _| !inside(path));
        let now = sim.names.iter().filter(|(path, _)| inside(path));
        durable.extend(now.map(|(path, inode)| (path.clone(), *inode)));
        sim.durable_names = durable;
        Ok(())
    }

    fn usage(&self, _dir: &Path) -> io::Result<DiskUsage> {
        let sim = self.lock();
        let used_bytes = sim.used_bytes();
        let capacity = sim.capacity_bytes.unwrap_or(1 << 40);
        Ok(DiskUsage {
            used_bytes,
            available_bytes: capacity.saturating_sub(used_bytes),
        })
    }
}

/// Disk, inode, generation.
struct SimFile(SimDisk, u64, u64);

impl SimFile {
    /// A process that is gone writes nothing.
    fn check_alive(&self, sim: &Sim) -> io::Result<()> {
        if self.2 == sim.generation {
            Ok(())
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    /// One changing operation on the file.
    fn change(&self, change: Change, growth: impl Fn(usize) -> usize) -> io::Result<()> {
        let mut sim = self.0.lock();
        self.check_alive(&sim)?;
        let outcome = sim.operation();
        let size = sim.files.get(&self.1).map_or(0, |file| file.current.len());
        sim.check_space(growth(size))?;
        let Some(file) = sim.files.get_mut(&self.1) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match outcome {
            Ok(()) => {
                change.apply(&mut file.current);
                file.pending.push(change);
                Ok(())
            }
            Err(error) => {
                // A failed write can have written a part.
                if let Change::Write(offset, data) = change {
                    let half = data.get(..data.len() / 2).unwrap_or_default().to_vec();
                    let half = Change::Write(offset, half);
                    half.apply(&mut file.current);
                    file.pending.push(half);
                }
                Err(error)
            }
        }
    }
}

impl DiskFile for SimFile {
    fn size_bytes(&self) -> io::Result<u64> {
        let sim = self.0.lock();
        Ok(sim
            .files
            .get(&self.1)
            .map_or(0, |file| file.current.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let sim = self.0.lock();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let file = sim.files.get(&self.1);
        let rest = file
            .and_then(|file| file.current.get(offset..))
            .unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_all_at(&self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let data = parts.concat();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset + data.len();
        self.change(Change::Write(offset, data), |size| end.saturating_sub(size))
    }

    fn allocate(&self, size_bytes: u64) -> io::Result<()> {
        let to = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        self.change(Change::Size(to), |size| to.saturating_sub(size))
    }

    fn set_size(&self, size_bytes: u64) -> io::Result<()> {
        let to = usize::try_from(size_bytes).unwrap_or(usize::MAX);
        self.change(Change::Size(to), |size| to.saturating_sub(size))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sim = self.0.lock();
        self.check_alive(&sim)?;
        let outcome = sim.operation();
        let Some(file) = sim.files.get_mut(&self.1) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let pending = std::mem::take(&mut file.pending);
        if outcome.is_ok() {
            for change in pending {
                change.apply(&mut file.durable);
            }
        }
        outcome
    }
}
