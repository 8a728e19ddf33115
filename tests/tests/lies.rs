//! A chunkserver whose bytes agree with their checksums, and are not those of the chunk: only all checksums together, compared with
//! what the master recorded, show it.

use std::{
    io::SeekFrom,
    path::Path,
    sync::{Arc, OnceLock},
};

use quarry_client::{
    Client, ClientConfig, ErrorCode, FileReader,
    frames::{FrameReader, FrameWriter},
};
use quarry_env::{
    World,
    kv::NoKv,
    local::{BoxLocalListener, BoxLocalStream},
    net::{BoxFuture, BoxStream, Listener, Net},
};
use quarry_proto::frame::Frame;
use quarry_tests::{Cluster, Options, data};
use quarry_types::{Crc32, limits::BLOCK_BYTES};
use tokio::{
    io::AsyncSeekExt as _,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

/// One chunk, read in several ranges.
const LENGTH: usize = 21 * (1 << 20) + 77;

/// A network on which the first chunkserver that is read from lies about one byte.
#[derive(Clone)]
struct Lying {
    real: Arc<dyn Net>,
    masters: String,
    /// Of the chunk.
    byte: u64,
    /// What it says of that agrees with itself.
    well: bool,
    liar: Arc<OnceLock<String>>,
}

impl Net for Lying {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<Box<dyn Listener>>> {
        self.real.bind(address)
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, std::io::Result<BoxStream>> {
        if self.masters.split(',').any(|master| master == address) {
            return self.real.connect(address);
        }
        Box::pin(async move {
            let proxy = TcpListener::bind("127.0.0.1:0").await?;
            let at = proxy.local_addr()?.to_string();
            let (lying, address) = (self.clone(), address.to_owned());
            tokio::spawn(async move {
                let (client, _) = proxy.accept().await.expect("the client comes");
                let server = TcpStream::connect(&address).await.expect("the chunkserver is there");
                lying.relay(&address, client, server).await;
            });
            self.real.connect(&at).await
        })
    }

    fn bind_local(&self, path: &Path) -> std::io::Result<BoxLocalListener> {
        self.real.bind_local(path)
    }

    fn connect_local(&self, path: &Path) -> std::io::Result<BoxLocalStream> {
        self.real.connect_local(path)
    }
}

impl Lying {
    async fn relay(&self, address: &str, client: TcpStream, server: TcpStream) {
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let asking = async { tokio::io::copy(&mut from_client, &mut to_server).await };
        let answering = async {
            let (mut reader, mut writer) =
                (FrameReader::new(from_server, "server"), FrameWriter::new(to_client, "client"));
            while let Ok(Some((mut frame, bytes))) = reader.next().await {
                let mut payload = vec![0; bytes as usize];
                reader.payload(&mut payload).await.expect("the payload comes");
                if let Frame::ReadData(data) = &mut frame
                    && self.liar.get_or_init(|| address.to_owned()) == address
                    && let Some(at) = self.byte.checked_sub(data.offset).filter(|at| *at < u64::from(bytes))
                {
                    payload[at as usize] ^= 1;
                    if self.well {
                        let blocks = payload.chunks(BLOCK_BYTES as usize).map(|block| Crc32::of(block).0);
                        data.block_crcs = blocks.collect();
                    }
                }
                let sent = async {
                    writer.begin(frame, bytes).await?;
                    writer.payload(&payload).await?;
                    writer.flush().await
                };
                if sent.await.is_err() {
                    return;
                }
            }
        };
        // Either end may go first.
        tokio::select! {
            _ = asking => {}
            () = answering => {}
        }
    }
}

/// A file of one chunk, opened where the first server lies about `byte`.
fn opened(runtime: &Runtime, length: usize, byte: usize, well: bool) -> (Cluster, Vec<u8>, FileReader) {
    let (cluster, bytes) = (Cluster::start(&Options::default()), data::bytes(1, length));
    cluster.put("/f", &[], &bytes);
    let real = World::real(Arc::new(NoKv));
    let (masters, liar) = (cluster.masters.clone(), Arc::default());
    let net = Lying { real: Arc::clone(&real.net), masters, byte: byte as u64, well, liar };
    let world = World { net: Arc::new(net), ..real };
    let config = ClientConfig { local_reads: false, ..ClientConfig::new(cluster.masters.split(',')) };
    let client = runtime.block_on(Client::connect(world, config)).expect("a client");
    let file = runtime.block_on(client.open("/f")).expect("the file is there");
    (cluster, bytes, file)
}

#[test]
fn s3_a_lie_in_the_last_packet_of_a_chunk_is_not_handed_out_and_another_replica_is_read() {
    let runtime = Runtime::new().expect("a runtime");
    let (_cluster, bytes, mut file) = opened(&runtime, LENGTH, LENGTH - 1, true);
    let mut all = Vec::new();
    while let Some(part) = runtime.block_on(file.next_bytes()).expect("another replica is right") {
        all.extend_from_slice(&part);
    }
    assert!(all == bytes);
    assert_eq!(file.stats().corrupt, 1, "the liar was asked for all of it once more, and then not again");
}

/// Reads to the lie, which ends the read, and then asks again.
fn read_past_a_lie(length: usize, byte: usize) {
    let runtime = Runtime::new().expect("a runtime");
    let (_cluster, bytes, mut file) = opened(&runtime, length, byte, true);
    let mut read = 0;
    let error = loop {
        match runtime.block_on(file.next_bytes()) {
            Ok(Some(part)) => read += part.len(),
            Ok(None) => panic!("the file must not end well"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), ErrorCode::Corrupt, "{error}");
    assert!(read < bytes.len() && error.to_string().contains("discard what was read"), "{read} bytes, then {error}");

    // Asking again does not bring what was held back; the chunk from its start does, and is right or fails again.
    let again = runtime.block_on(file.next_bytes()).expect_err("what is behind the lie");
    assert_eq!(again.code(), ErrorCode::Corrupt, "{again}");
    runtime.block_on(file.seek(SeekFrom::Start(0))).expect("it can be sought");
    assert!(runtime.block_on(file.next_bytes()).expect("the first bytes are right").is_some());
}

#[test]
fn s3_a_lie_that_was_handed_out_ends_the_read_with_an_error_before_the_chunk_is_complete() {
    read_past_a_lie(LENGTH, 9 << 20);
}

#[test]
fn s3_so_does_one_in_a_chunk_that_comes_in_one_range() {
    read_past_a_lie(2 * (1 << 20) + 77, 100);
}

#[test]
fn s3_after_a_damaged_packet_the_connection_with_the_rest_of_the_range_is_not_used_again() {
    let runtime = Runtime::new().expect("a runtime");
    let (_cluster, bytes, file) = opened(&runtime, LENGTH, 77, false);
    // The first packet of four is damaged; the other three are on their way when it is noticed.
    let (length, offset) = (4 << 20, 5 << 20);
    assert!(runtime.block_on(file.read_range(0, length)).expect("another replica is right") == bytes[..length]);
    assert_eq!((file.stats().corrupt, file.stats().failovers), (1, 1));
    // Whoever is asked next, by whatever connection, gives what is asked for.
    for _ in 0..20 {
        let read = runtime.block_on(file.read_range(offset, 1000)).expect("it can be read");
        assert!(read == bytes[offset as usize..offset as usize + 1000]);
    }
    assert_eq!((file.stats().corrupt, file.stats().failovers), (1, 1), "nobody else was blamed");
}

#[test]
fn s3_a_range_that_is_a_whole_chunk_is_compared_as_well() {
    let runtime = Runtime::new().expect("a runtime");
    let (_cluster, bytes, file) = opened(&runtime, LENGTH, LENGTH - 1, true);
    let read = runtime.block_on(file.read_range(0, LENGTH)).expect("another replica is right");
    assert!(read == bytes);
    assert_eq!(file.stats().corrupt, 1);
}
