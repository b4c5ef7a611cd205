//! The embedded agent, for hosts without Felix: makes the interfaces of workloads, and the rules that let them out and others in.
//!
//! ```text
//! files: Workload, PortExposure, IPPool ─→ resources ─┐
//! `margay workload add` ──────────────────────────────┴→ plan (pure) ─steps→ host ─netlink, sysctl→ kernel
//!                                     kernel ─links, addresses, routes──↑
//!                                  pools, exposures ─→ nat ─one transaction→ nft, table `inet margay`
//! ```
//! **State lives in the kernel alone.** What there is is read back each time, compared with what is wanted, and only the difference is written; then it
//! is read once more. So it may be killed anywhere and run again, and where nothing is missing nothing is written. An interface of ours is
//! known by its group ([`GROUP`]), set in the same message that makes it; its `ifalias` has the workload's name.
//!
//! **What a workload gets**, as Calico has it: a veth pair, here `cali` and eleven digits of its name's hash with the MAC ee:ee:ee:ee:ee:ee, there `eth0`
//! with its addresses (/32, /128: whatever they end in), a route to 169.254.1.1 (fe80::ecee:eeff:feee:eeee) on the link and the default route over it;
//! a permanent neighbour entry there for the former, since proxy ARP answers only where this host has a default route; proxy ARP and NDP, forwarding and strict reverse path filtering here; and a route to each address, which margay
//! learns from the kernel and announces.
//!
//! **Where Felix runs it does nothing** ([`felix`]). What it writes outside of its own links and its own nftables table: `ip_forward` and, for IPv6,
//! `conf/all/forwarding`, which takes router advertisements away from interfaces with `accept_ra=1` (2 keeps them).
//!
//! Not supported: network policy, IPAM (addresses are given), VLANs and taps, namespaces that need another way in than a file.

pub mod felix;
pub mod host;
pub mod nat;
pub mod plan;
pub mod resources;

/// `group` of the interfaces that are ours: "mg".
pub const GROUP: u32 = 0x6d67;
