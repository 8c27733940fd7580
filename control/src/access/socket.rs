//! Socket files.

use super::Access;
use rustix::fs::{XattrFlags, setxattr};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen as start, socket_with,
};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A socket file that we listen on. Dropping it removes the file, unless somebody has put another one there.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl SocketFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("socket {}: {error}", self.path.display());
        }
    }
}

/// Listens on a socket file, with mode 0660 and for those whom `access` names; nobody gets in before. A file that nobody
/// listens on any more is replaced. The socket does not block.
///
/// # Errors
/// `AddrInUse` when another process listens there, `AlreadyExists` when it is no socket; what the system says otherwise.
pub fn listen(path: &Path, kind: SocketType, access: &Access) -> io::Result<(OwnedFd, SocketFile)> {
    let address = SocketAddrUnix::new(path)?;
    let new = || socket_with(AddressFamily::UNIX, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "exists, and is not a socket"));
        }
        Ok(_) => match connect(new()?, &address) {
            Err(Errno::CONNREFUSED) => fs::remove_file(path)?,
            Err(Errno::NOENT) => {}
            // PROTOTYPE: the socket is of another type.
            Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
                let why = "address in use: another process listens on it";
                return Err(io::Error::new(ErrorKind::AddrInUse, why));
            }
            Err(error) => return Err(error.into()),
        },
    }
    let socket = new()?;
    bind(&socket, &address)?;
    let meta = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), file: (meta.dev(), meta.ino()) };
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    admit(path, access, 6)?;
    start(&socket, 64)?;
    Ok((socket, file))
}

/// Makes the directory of sockets, if it is not there, with mode 0750 and for those whom `access` names.
///
/// # Errors
/// What the system says.
pub fn make_directory(path: &Path, access: &Access) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    // Whatever the umask is.
    fs::set_permissions(path, Permissions::from_mode(0o750))?;
    admit(path, access, 1)
}

/// Sets owner and group, and lets those in who are listed beside them. `permissions`: read 4, write 2, enter 1.
fn admit(path: &Path, access: &Access, permissions: u16) -> io::Result<()> {
    if access.owner.is_some() || access.group.is_some() {
        chown(path, access.owner, access.group)?;
    }
    let meta = fs::metadata(path)?;
    let others = |own: u32, lists: [&[u32]; 2]| {
        let mut ids: Vec<u32> = lists.concat().into_iter().filter(|id| *id != own).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let users = others(meta.uid(), [&access.read_write.uids, &access.read_only.uids]);
    let groups = others(meta.gid(), [&access.read_write.gids, &access.read_only.gids]);
    if users.is_empty() && groups.is_empty() {
        return Ok(());
    }
    let list = access_control_list(meta.mode(), &users, &groups, permissions);
    let set = setxattr(path, "system.posix_acl_access", &list, XattrFlags::empty());
    set.map_err(|error| match error {
        Errno::OPNOTSUPP => {
            let why = "its file system has no access control lists, which listed users and groups need";
            io::Error::new(ErrorKind::Unsupported, why)
        }
        error => error.into(),
    })
}

/// As the kernel takes it (`include/uapi/linux/posix_acl_xattr.h`): entries in the order of their tags, and of ids.
fn access_control_list(mode: u32, users: &[u32], groups: &[u32], permissions: u16) -> Vec<u8> {
    const USER_OBJ: u16 = 0x01;
    const USER: u16 = 0x02;
    const GROUP_OBJ: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    const UNDEFINED: u32 = u32::MAX;
    let bits = |shift: u32| (mode >> shift & 7) as u16;
    let mut list = 2u32.to_le_bytes().to_vec();
    let mut add = |tag: u16, permissions: u16, id: u32| {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&permissions.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    };
    add(USER_OBJ, bits(6), UNDEFINED);
    users.iter().for_each(|id| add(USER, permissions, *id));
    add(GROUP_OBJ, bits(3), UNDEFINED);
    groups.iter().for_each(|id| add(GROUP, permissions, *id));
    add(MASK, bits(3) | permissions, UNDEFINED);
    add(OTHER, bits(0), UNDEFINED);
    list
}
