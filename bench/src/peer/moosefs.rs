//! MooseFS: a master, three chunkservers, a mount without the kernel's cache, goal 3.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    Peer,
    load::Files,
    ports,
    spawned::{Spawned, version},
};
use crate::{
    bed::{Durability, text},
    error::{During as _, Failed, Outcome},
    floor::ring,
};

/// Chunkservers, and copies.
const SERVERS: usize = 3;
/// How its master saves changes (`CHANGELOG_SAVE_MODE`): behind its answers, which is the default,
const SAVE_IN_BACKGROUND: u8 = 0;
/// or with a sync before each.
const SAVE_SYNCED: u8 = 2;

/// A running one. Its parts end in this order: the mount first.
pub struct MooseFs {
    _mount: Mount,
    processes: Vec<Spawned>,
    files: PathBuf,
}

struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: what still has a file open does not keep the suite from ending.
        let _not_mounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl MooseFs {
    /// Starts it with everything below `dir`. For [`Durability::Sealed`] it syncs what it can be told to: chunks before they are
    /// closed, and each change of metadata.
    ///
    /// # Errors
    /// When it is not installed or does not come up.
    pub fn start(dir: &Path, durability: Durability) -> Outcome<Self> {
        let [clients, servers, masters, first, second, third] = ports::free(6, 0)?[..] else {
            return Err(Failed::new("starting MooseFS", "no ports"));
        };
        let own = own_address()?;
        let mount = Mount(dir.join("mount"));
        for name in ["master", "mount"] {
            fs::create_dir_all(dir.join(name)).during("starting MooseFS")?;
        }
        let mut processes = vec![master(dir, own, [clients, servers, masters], durability)?];
        for (number, port) in [first, second, third].into_iter().enumerate() {
            processes.push(chunkserver(dir, own, number, [port, servers], durability)?);
        }
        let (host, port) = (own.to_string(), clients.to_string());
        let args = ["-f", "-H", &host, "-P", &port, "-o"];
        let options = "mfscachemode=DIRECT,mfsattrcacheto=0,mfsentrycacheto=0,mfsdirentrycacheto=0";
        let args = [&args[..], &[options, text(&mount.0)?]].concat();
        let mut mounted = Spawned::start("mfsmount", &args, &dir.join("mount.log"))?;
        let files = mount.0.join("bench");
        mounted.wait(|| is_mounted(&mount.0))?;
        fs::create_dir_all(&files).during("starting MooseFS")?;
        let goal = Command::new("mfssetgoal").args(["3", text(&files)?]).output().during("setting MooseFS's goal")?;
        if !goal.status.success() {
            return Err(Failed::new("setting MooseFS's goal", String::from_utf8_lossy(&goal.stderr)));
        }
        // A first file goes through when all chunkservers are known.
        let probe = files.join("probe");
        mounted.wait(|| fs::write(&probe, b"up").is_ok() && goal_met(&probe))?;
        processes.push(mounted);
        Ok(MooseFs { _mount: mount, processes, files })
    }

    /// What it calls itself.
    pub fn version(&self) -> String {
        format!("MooseFS {}", version("mfsmaster", &["-v"]).trim_start_matches("version: "))
    }
}

impl Peer for MooseFs {
    fn name(&self) -> &'static str {
        "moosefs"
    }

    fn pids(&self) -> Vec<u32> {
        self.processes.iter().map(Spawned::pid).collect()
    }

    fn files(&self, durability: Durability) -> Box<dyn Files> {
        Box::new(Mounted { dir: self.files.clone(), sync: durability == Durability::Sealed })
    }
}

/// The address of this machine's own network: a chunkserver of MooseFS does not take a loopback address for its master's.
fn own_address() -> Outcome<IpAddr> {
    let doing = "looking for an address of this machine for MooseFS";
    let socket = UdpSocket::bind("0.0.0.0:0").during(doing)?;
    // Nothing is sent: this asks which address would be used. The other one is for documentation (RFC 5737).
    socket.connect("198.51.100.1:9").during(doing)?;
    let address = socket.local_addr().during(doing)?.ip();
    if address.is_loopback() { Err(Failed::new(doing, "there is only a loopback address")) } else { Ok(address) }
}

fn master(dir: &Path, own: IpAddr, [clients, servers, masters]: [u16; 3], durability: Durability) -> Outcome<Spawned> {
    let home = dir.join("master");
    let (exports, config) = (dir.join("exports.cfg"), dir.join("master.cfg"));
    fs::write(&exports, "* / rw,alldirs,admin,maproot=0:0\n").during("configuring MooseFS")?;
    // What a new master begins with.
    fs::write(home.join("metadata.mfs"), b"MFSM NEW").during("configuring MooseFS")?;
    let lines = format!(
        "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {}\nEXPORTS_FILENAME = {}\nMATOCL_LISTEN_HOST = {own}\n\
         MATOCL_LISTEN_PORT = {clients}\nMATOCS_LISTEN_HOST = {own}\nMATOCS_LISTEN_PORT = {servers}\n\
         MATOML_LISTEN_HOST = {own}\nMATOML_LISTEN_PORT = {masters}\nLOCK_MEMORY = 0\n\
         CHANGELOG_SAVE_MODE = {}\n",
        text(&home)?,
        text(&exports)?,
        if durability == Durability::Sealed { SAVE_SYNCED } else { SAVE_IN_BACKGROUND },
    );
    fs::write(&config, lines).during("configuring MooseFS")?;
    let mut started = Spawned::start("mfsmaster", &["-f", "-c", text(&config)?, "start"], &dir.join("master.log"))?;
    started.wait(|| TcpStream::connect((own, clients)).is_ok())?;
    Ok(started)
}

fn chunkserver(
    dir: &Path,
    own: IpAddr,
    number: usize,
    [port, master]: [u16; 2],
    durability: Durability,
) -> Outcome<Spawned> {
    let home = dir.join(format!("chunkserver-{number}"));
    let (config, disks) = (home.join("chunkserver.cfg"), home.join("disks.cfg"));
    let data = home.join("data");
    fs::create_dir_all(&data).during("configuring MooseFS")?;
    fs::write(&disks, format!("{}\n", text(&data)?)).during("configuring MooseFS")?;
    let lines = format!(
        "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {}\nHDD_CONF_FILENAME = {}\nMASTER_HOST = {own}\n\
         MASTER_PORT = {master}\nCSSERV_LISTEN_HOST = {own}\nCSSERV_LISTEN_PORT = {port}\nLOCK_MEMORY = 0\n\
         HDD_LEAVE_SPACE_DEFAULT = 256MiB\nHDD_FSYNC_BEFORE_CLOSE = {}\n",
        text(&home)?,
        text(&disks)?,
        u8::from(durability == Durability::Sealed),
    );
    fs::write(&config, lines).during("configuring MooseFS")?;
    let mut started = Spawned::start("mfschunkserver", &["-f", "-c", text(&config)?, "start"], &home.join("log"))?;
    started.wait(|| TcpStream::connect((own, port)).is_ok())?;
    Ok(started)
}

fn is_mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

/// Whether the file has as many copies as it should.
fn goal_met(path: &Path) -> bool {
    let out = Command::new("mfscheckfile").arg(path).output();
    let said = out.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    said.lines().any(|line| line.contains(&format!("{SERVERS} copies")) && line.trim_end().ends_with('1'))
}

/// Files below the mount.
struct Mounted {
    dir: PathBuf,
    sync: bool,
}

impl Files for Mounted {
    fn put(&self, name: &str, ring: &[u8], bytes: u64) -> Outcome {
        let write = || {
            let mut file = File::create(self.dir.join(name))?;
            let mut left = bytes;
            for piece in ring.chunks(ring::PIECE_BYTES).cycle() {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                file.write_all(&piece[..part])?;
                left -= part as u64;
                if left == 0 {
                    break;
                }
            }
            if self.sync { file.sync_all() } else { Ok(()) }
        };
        write().during(format!("writing {name}"))
    }

    fn get(&self, name: &str) -> Outcome<u64> {
        let read = || {
            let mut file = File::open(self.dir.join(name))?;
            let (mut buffer, mut bytes) = (vec![0; ring::PIECE_BYTES], 0);
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok::<_, std::io::Error>(bytes),
                    more => bytes += more as u64,
                }
            }
        };
        read().during(format!("reading {name}"))
    }

    fn stat(&self, name: &str) -> Outcome<u64> {
        fs::metadata(self.dir.join(name)).map(|found| found.len()).during(format!("looking up {name}"))
    }

    fn remove(&self, name: &str) -> Outcome {
        fs::remove_file(self.dir.join(name)).during(format!("removing {name}"))
    }
}
