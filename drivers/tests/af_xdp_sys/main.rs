//! The AF_XDP system layer against this machine's kernel. Needs root and iproute2; all traffic
//! stays in network namespaces of the tests' own.

mod device;
mod lab;
mod programs;
mod traffic;
