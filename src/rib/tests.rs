//! The shard as a whole.

use super::testing::*;
use crate::origin::LocalTarget;
use crate::policy::RouteSource;
use crate::types::{Asn, Family};

#[test]
fn a_route_goes_from_one_peer_to_the_kernel_and_to_another_peer() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.up(2, US);
    bench.announce(1, "192.0.2.0/24", attributes("10.0.0.1", &[65001]));
    assert_eq!(bench.fib("192.0.2.0/24"), "10.0.0.1");
    let told = bench.told_of(2, "192.0.2.0/24").unwrap();
    assert_eq!((told.as_path.first(), told.local_pref), (Some(Asn(65001)), Some(100)));
    assert_eq!(bench.told_of(1, "192.0.2.0/24"), None, "E1");
    assert_eq!(bench.sent(2), ["+192.0.2.0/24"]);
    assert_eq!(bench.ended[&crate::types::PeerId(2)], Family::ALL);
    bench.withdraw(1, "192.0.2.0/24");
    assert_eq!((bench.fib("192.0.2.0/24"), bench.sent(2)), ("none".to_owned(), vec!["-192.0.2.0/24".to_owned()]));
}

#[test]
fn a_local_route_is_told_with_our_own_address() {
    let mut bench = Bench::new();
    bench.up(1, 65001);
    bench.local(RouteSource::Block, "10.244.1.0/26", Some(LocalTarget::Blackhole));
    assert_eq!(bench.fib("10.244.1.0/26"), "blackhole");
    let told = bench.told_of(1, "10.244.1.0/26").unwrap();
    assert_eq!((told.next_hop.address(), told.as_path.first(), told.local_pref), (ip("10.0.0.100"), Some(Asn(US)), None));
    bench.local(RouteSource::Block, "10.244.1.0/26", None);
    assert_eq!((bench.fib("10.244.1.0/26").as_str(), bench.told(1).len()), ("none", 0));
}
