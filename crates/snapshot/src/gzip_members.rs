// SPDX-License-Identifier: Apache-2.0
//! gzip as independent members of a fixed amount of input, compressed by several threads.
//!
//! Blocks are cut by position alone and written in order, so the bytes are the same for any number of
//! threads. At most two blocks per thread are in flight, which bounds the memory.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

/// Input bytes of one member; changing it changes the digests of layers.
const MEMBER_INPUT_BYTES: usize = 1 << 20;
const MAX_THREADS: usize = 64;

struct Block {
    index: u64,
    bytes: Vec<u8>,
}

pub(crate) struct GzipMembers<W: Write> {
    out: W,
    pending: Vec<u8>,
    next_block: u64,
    next_to_write: u64,
    finished: BTreeMap<u64, Vec<u8>>,
    workers: Workers,
}

enum Workers {
    /// One thread: the caller's own.
    Own(Box<Compressor>),
    Pool {
        blocks: Sender<Block>,
        results: Receiver<io::Result<Block>>,
        max_in_flight: u64,
    },
}

impl<W: Write> GzipMembers<W> {
    /// Starts the threads; they end when the writer is dropped or finished.
    pub(crate) fn new(level: i32, threads: usize, out: W) -> io::Result<GzipMembers<W>> {
        let level = CompressionLvl::new(level)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "unknown gzip level"))?;
        let workers = if threads <= 1 {
            Workers::Own(Box::new(Compressor::new(level)))
        } else {
            start_pool(level, threads.min(MAX_THREADS))?
        };
        Ok(GzipMembers {
            out,
            pending: Vec::new(),
            next_block: 0,
            next_to_write: 0,
            finished: BTreeMap::new(),
            workers,
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        // No input at all still needs one member: an empty file is no gzip stream.
        if !self.pending.is_empty() || self.next_block == 0 {
            self.dispatch()?;
        }
        while self.next_to_write < self.next_block {
            self.collect()?;
        }
        Ok(self.out)
    }

    /// Sends the pending block to be compressed.
    fn dispatch(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.pending);
        let index = self.next_block;
        self.next_block += 1;
        match &mut self.workers {
            Workers::Own(compressor) => {
                let member = compress_member(compressor, &bytes)?;
                self.next_to_write += 1;
                self.pending = bytes;
                self.pending.clear();
                self.out.write_all(&member)
            }
            Workers::Pool { blocks, max_in_flight, .. } => {
                blocks.send(Block { index, bytes }).map_err(|_| threads_ended())?;
                let max_in_flight = *max_in_flight;
                while self.next_block - self.next_to_write > max_in_flight {
                    self.collect()?;
                }
                Ok(())
            }
        }
    }

    /// Takes one finished block and writes those whose turn has come.
    fn collect(&mut self) -> io::Result<()> {
        let Workers::Pool { results, .. } = &self.workers else { return Ok(()) };
        let block = results.recv().map_err(|_| threads_ended())??;
        self.finished.insert(block.index, block.bytes);
        while let Some(member) = self.finished.remove(&self.next_to_write) {
            self.out.write_all(&member)?;
            self.next_to_write += 1;
        }
        Ok(())
    }
}

impl<W: Write> Write for GzipMembers<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.capacity() == 0 {
            self.pending.reserve_exact(MEMBER_INPUT_BYTES);
        }
        let len = bytes.len().min(MEMBER_INPUT_BYTES - self.pending.len());
        self.pending.extend_from_slice(&bytes[..len]);
        if self.pending.len() == MEMBER_INPUT_BYTES {
            self.dispatch()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn threads_ended() -> io::Error {
    io::Error::other("the compression threads ended early")
}

fn start_pool(level: CompressionLvl, threads: usize) -> io::Result<Workers> {
    let (blocks, queue) = channel::<Block>();
    let (answers, results) = channel();
    let queue = Arc::new(Mutex::new(queue));
    for _ in 0..threads {
        let queue = Arc::clone(&queue);
        let answers = answers.clone();
        thread::Builder::new().name("gzip".to_owned()).spawn(move || work(level, &queue, &answers))?;
    }
    Ok(Workers::Pool { blocks, results, max_in_flight: 2 * threads as u64 })
}

/// Compresses blocks until the other side hangs up.
fn work(level: CompressionLvl, queue: &Mutex<Receiver<Block>>, answers: &Sender<io::Result<Block>>) {
    let mut compressor = Compressor::new(level);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Block { index, bytes }) = next else { return };
        let answer = compress_member(&mut compressor, &bytes).map(|bytes| Block { index, bytes });
        if answers.send(answer).is_err() {
            return;
        }
    }
}

/// Compresses one block into a gzip member without time and name.
fn compress_member(compressor: &mut Compressor, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let len = compressor
        .gzip_compress(bytes, &mut member)
        .map_err(|error| io::Error::other(format!("gzip compression failed: {error}")))?;
    member.truncate(len);
    Ok(member)
}
