//! Unix sockets that keep messages apart (`SOCK_SEQPACKET`). A name that leads to another kind of socket cannot be connected
//! to, so that a path from somebody else never makes us talk to a foreign service.

use std::{
    fs::{self, File, Permissions},
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    cmsg_space,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind as bind_to,
        connect as connect_to, listen, recvmsg, sendmsg, socket_with,
    },
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
};

use crate::{
    DiskFile,
    local::{BoxLocalListener, BoxLocalStream, LocalListener, LocalMessage, LocalStream},
    net::BoxFuture,
};

/// Connections that may wait to be accepted; who comes then is told to come back.
const BACKLOG: i32 = 64;
/// Whoever reaches the name may connect: who that is the directories above say.
const MODE: u32 = 0o666;

/// tokio and std know one kind of Unix socket, and only move their descriptors: these are of the other kind.
struct Conn(UnixStream);

struct Bound {
    socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the name.
    name: (u64, u64),
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

pub(super) fn connect(path: &Path) -> io::Result<BoxLocalStream> {
    let socket = new_socket()?;
    connect_to(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(Box::new(Conn(UnixStream::from_std(socket.into())?)))
}

pub(super) fn bind(path: &Path) -> io::Result<BoxLocalListener> {
    clear(path)?;
    let socket = new_socket()?;
    bind_to(&socket, &SocketAddrUnix::new(path)?)?;
    let found = fs::symlink_metadata(path)?;
    let name = (found.dev(), found.ino());
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listen(&socket, BACKLOG)?;
    Ok(Box::new(Bound { socket: UnixListener::from_std(socket.into())?, path: path.to_owned(), name }))
}

/// Removes the socket of a process that is gone.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    let shown = path.display();
    if !found.file_type().is_socket() {
        let message = format!("{shown} is there already and no socket; name another path, or remove it");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match connect_to(&new_socket()?, &SocketAddrUnix::new(path)?) {
        Err(rustix::io::Errno::CONNREFUSED) => fs::remove_file(path),
        _ => Err(io::Error::new(io::ErrorKind::AddrInUse, format!("another process listens at {shown}"))),
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Another process may have put its own in the place.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.name) {
            // A name that stays is removed by who listens there next.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

impl LocalListener for Bound {
    fn accept(&self) -> BoxFuture<'_, io::Result<BoxLocalStream>> {
        Box::pin(async move {
            let (accepted, _) = self.socket.accept().await?;
            Ok(Box::new(Conn(accepted)) as BoxLocalStream)
        })
    }
}

impl LocalStream for Conn {
    fn send<'a>(&'a self, bytes: &'a [u8], file: Option<&'a dyn DiskFile>) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(async move {
            let descriptor = match file {
                Some(file) => Some(file.descriptor().ok_or(io::ErrorKind::Unsupported)?),
                None => None,
            };
            self.0
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
                    let mut control = SendAncillaryBuffer::new(&mut space);
                    let descriptors = descriptor.as_slice();
                    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
                        return Err(io::ErrorKind::InvalidInput.into());
                    }
                    // A message is sent whole or not at all.
                    sendmsg(&self.0, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?;
                    Ok(())
                })
                .await
        })
    }

    fn receive(&self, limit: usize) -> BoxFuture<'_, io::Result<Option<LocalMessage>>> {
        Box::pin(async move {
            let mut bytes = vec![0; limit];
            let (length, file) = self.0.async_io(Interest::READABLE, || receive(&self.0, &mut bytes)).await?;
            bytes.truncate(length);
            let file = file.map(checked).transpose()?;
            Ok((length > 0).then_some(LocalMessage { bytes, file }))
        })
    }
}

/// Takes one message, if one is there. Descriptors beyond the first are closed.
fn receive(socket: &impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let came = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let file = descriptors.next().and_then(|mut descriptors| descriptors.next());
    if came.flags.contains(ReturnFlags::TRUNC) {
        let message = format!("a message is longer than {} bytes", bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok((came.bytes, file))
}

/// Only files are read without waiting for somebody.
fn checked(descriptor: OwnedFd) -> io::Result<Box<dyn DiskFile>> {
    let file = File::from(descriptor);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor came that is no file's"));
    }
    Ok(Box::new(file))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{OpenMode, World, kv::NoKv};

    fn place(name: &str) -> (World, PathBuf) {
        let world = World::real(Arc::new(NoKv));
        let dir = std::env::temp_dir().join(format!("quarry-env-{name}-{:x}", world.random.next_u64()));
        world.disk.create_dir_all(&dir).unwrap();
        (world, dir)
    }

    #[tokio::test]
    async fn a_message_arrives_whole_with_its_file() {
        let (world, dir) = place("passed");
        let (path, data) = (dir.join("socket"), dir.join("data"));
        let listener = world.net.bind_local(&path).unwrap();
        let caller = world.net.connect_local(&path).unwrap();
        let server = listener.accept().await.unwrap();
        world.disk.open(&data, OpenMode::CreateNew).unwrap().write_all_at(b"0123456789", 0).unwrap();
        let file = world.disk.open(&data, OpenMode::Read).unwrap();
        world.disk.remove_file(&data).unwrap();

        caller.send(b"give me", None).await.unwrap();
        caller.send(b"and more", None).await.unwrap();
        let asked = server.receive(100).await.unwrap().unwrap();
        assert_eq!((&asked.bytes[..], asked.file.is_none()), (&b"give me"[..], true));
        server.send(b"here", Some(&*file)).await.unwrap();
        drop(file);
        let answer = caller.receive(100).await.unwrap().unwrap();
        assert_eq!(answer.bytes, b"here");
        let mut read = [0; 4];
        let file = answer.file.unwrap();
        file.read_exact_at(&mut read, 3).unwrap();
        assert_eq!(&read, b"3456");
        assert!(file.write_all_at(b"x", 0).is_err(), "what was opened to be read cannot be written");

        let long = server.receive(3).await.unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidData, "longer than the limit: {long}");
        drop(caller);
        assert!(server.receive(100).await.unwrap().is_none());
        drop(listener);
        assert!(!world.disk.exists(&path).unwrap(), "the name goes with the listener");
        world.disk.remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_descriptor_that_is_no_file_is_refused() {
        let (world, dir) = place("pipe");
        let path = dir.join("socket");
        let listener = world.net.bind_local(&path).unwrap();
        let caller = world.net.connect_local(&path).unwrap();
        let server = listener.accept().await.unwrap();
        let (pipe, _end) = io::pipe().unwrap();
        server.send(b"here", Some(&File::from(OwnedFd::from(pipe)))).await.unwrap();
        assert_eq!(caller.receive(100).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        world.disk.remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn only_the_socket_of_a_process_that_is_gone_is_replaced() {
        let (world, dir) = place("stale");
        let path = dir.join("socket");
        let kind = || world.net.bind_local(&path).err().map(|error| error.kind());
        let first = world.net.bind_local(&path).unwrap();
        assert_eq!(kind(), Some(io::ErrorKind::AddrInUse));
        drop(first);
        let foreign = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(kind(), Some(io::ErrorKind::AddrInUse), "of another kind");
        assert!(world.net.connect_local(&path).is_err(), "a foreign service is not talked to");
        // As a process leaves it that is killed.
        drop(foreign);
        assert!(world.disk.exists(&path).unwrap());
        let again = world.net.bind_local(&path).unwrap();
        assert!(world.net.connect_local(&path).is_ok());
        drop(again);
        world.disk.open(&path, OpenMode::CreateNew).unwrap();
        assert_eq!(kind(), Some(io::ErrorKind::AlreadyExists), "what is no socket is not ours to remove");
        world.disk.remove_dir_all(&dir).unwrap();
    }
}
