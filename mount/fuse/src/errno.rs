//! The one place where the file system's errors become the kernel's numbers.

use fuser::Errno;
use manifold_vfs::Error;

/// Gives the kernel's number for an error.
///
/// An unknown failure is EIO and never ENOENT: applications take ENOENT as leave to forget a file.
pub fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        Error::Stale => Errno::ESTALE,
        Error::TimedOut(_) => Errno::ETIMEDOUT,
        Error::Unreachable(_) => Errno::EHOSTUNREACH,
        Error::AccessDenied(_) | Error::PermissionDenied(_) => Errno::EACCES,
        Error::ReadOnly => Errno::EROFS,
        Error::Unsupported(_) => Errno::EOPNOTSUPP,
        Error::CrossSource => Errno::EXDEV,
        Error::Full => Errno::ENOSPC,
        Error::Quota => Errno::EDQUOT,
        Error::NotADirectory => Errno::ENOTDIR,
        Error::IsADirectory => Errno::EISDIR,
        Error::InvalidArgument => Errno::EINVAL,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::BadHandle => Errno::EBADF,
        Error::NoData => Errno::ENODATA,
        Error::Exists => Errno::EEXIST,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::Busy => Errno::EBUSY,
        Error::TextBusy => Errno::ETXTBSY,
        Error::NotPermitted => Errno::EPERM,
        Error::TooManyLinks => Errno::EMLINK,
        Error::TooLarge => Errno::EFBIG,
        Error::ValueTooLong => Errno::E2BIG,
        Error::BeyondEnd => Errno::ENXIO,
        Error::Io(_) => Errno::EIO,
    }
}
