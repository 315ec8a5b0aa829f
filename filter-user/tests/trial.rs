use filter_user::compiler::*;
use filter_user::kernel::load::*;
use filter_user::kernel::run::*;
use filter_user::policy::model::*;
use std::sync::Arc;
#[test]
fn trial() {
    let o = Origin {
        file: Arc::from("x"),
        line: 1,
    };
    let svc = |n: &str, p: u16| Service {
        name: n.into(),
        environment: "p".into(),
        address: Addresses::Prefixes(vec!["10.0.0.0/24".parse().unwrap()]),
        protocols: Protocols { tcp: true, udp: true },
        ports: vec![PortRange { first: p, last: p }],
        mode: None,
        limit: Limits {
            packets: Some(Limit {
                rate: 5,
                per_seconds: 1,
                burst: 7,
            }),
            bytes: None,
            connections: None,
        },
        remarks: Remarks::default(),
        origin: o.clone(),
    };
    for nsvc in [1u16, 1000] {
        let f = Filter {
            interfaces: vec![],
            mode: Mode::Enforce,
            attach: Attach::Auto,
            other_traffic: PassDrop::Drop,
            other_address: PassDrop::Drop,
            fragments: PassListedDrop::Listed,
            ping: PassListedDrop::Listed,
            non_ip: PassDrop::Drop,
            management_none: true,
            source_limit_max: 0,
            source_limit: Limits::default(),
            icmp_limit: Limits {
                packets: Some(Limit {
                    rate: 1,
                    per_seconds: 1,
                    burst: 1,
                }),
                bytes: None,
                connections: None,
            },
        };
        let p = Policy {
            filter: f,
            services: (0..nsvc).map(|i| svc(&format!("s{i}"), 1 + i)).collect(),
            clients: vec![Client {
                name: "c".into(),
                sources: vec![Source {
                    prefix: "1.2.3.0/24".parse().unwrap(),
                    origin: o.clone(),
                }],
                source_ports: vec![PortRange { first: 1, last: 5 }, PortRange { first: 10, last: 50 }],
                services: ServiceSet::All,
                credentials: vec![],
                limit: Limits {
                    packets: Some(Limit {
                        rate: 5,
                        per_seconds: 1,
                        burst: 7,
                    }),
                    bytes: Some(Limit {
                        rate: 5,
                        per_seconds: 1,
                        burst: 7000,
                    }),
                    connections: Some(Limit {
                        rate: 5,
                        per_seconds: 1,
                        burst: 7,
                    }),
                },
                expires: None,
                enabled: true,
                remarks: Remarks::default(),
                origin: o.clone(),
            }],
            denies: vec![],
            management: vec![Management {
                name: "m".into(),
                sources: vec![Source {
                    prefix: "9.2.3.0/24".parse().unwrap(),
                    origin: o.clone(),
                }],
                address: Addresses::Any,
                protocols: Protocols {
                    tcp: true,
                    udp: false,
                },
                ports: vec![PortRange { first: 22, last: 22 }],
                remarks: Remarks::default(),
                origin: o.clone(),
            }],
            publishers: vec![],
            expects: vec![],
            daemon: Daemon {
                instance: "".into(),
                state: "".into(),
                on_exit: OnExit::Keep,
                operators: vec![],
            },
            listeners: vec![],
            credentials: Credentials {
                header: vec![],
                scheme: Scheme::Sha256,
                secret_files: vec![],
                id_pattern: "".into(),
            },
            authorize: Authorize {
                address_header: "".into(),
                trusted_proxies: vec![],
                reason_header: false,
            },
            records: Records {
                interval: Default::default(),
                addresses: RecordAddresses::Full,
                written: false,
            },
            sinks: vec![],
        };
        let (n, _) = Numbers::default().assign(&p, None);
        let c = compile(
            &p,
            &n,
            &Surroundings {
                host_addresses: &[],
                end: &|_| 0,
            },
        )
        .unwrap();
        for log in [KernelLog::Off, KernelLog::Debug] {
            let t = std::time::Instant::now();
            match Generation::load(
                &c,
                Setting {
                    interfaces: &[1, 2, 3],
                    pins: None,
                    owners_max: 10,
                    log,
                },
            ) {
                Ok(mut g) => {
                    println!(
                        "OK {nsvc} {log:?} {} in {:?}",
                        g.verified_instructions,
                        t.elapsed()
                    );
                    let mut r = Runner::default();
                    let mut f = vec![0u8; 60];
                    f[12] = 8;
                    f[14] = 0x45;
                    f[17] = 46;
                    f[23] = 17;
                    f[26..30].copy_from_slice(&[1, 2, 3, 4]);
                    f[30..34].copy_from_slice(&[10, 0, 0, 1]);
                    f[35] = 40;
                    f[37] = 1;
                    f[39] = 26;
                    for _ in 0..9 {
                        println!(
                            "{:?}",
                            r.judge(
                                g.program("judge").unwrap(),
                                &f,
                                filter_common::abi::RunContext {
                                    now: 1000,
                                    ..Default::default()
                                }
                            )
                        );
                    }
                    let t = std::time::Instant::now();
                    for _ in 0..100000 {
                        r.judge(
                            g.program("judge").unwrap(),
                            &f,
                            filter_common::abi::RunContext {
                                now: 1000,
                                ..Default::default()
                            },
                        )
                        .unwrap();
                    }
                    println!("100k in {:?}", t.elapsed());
                }
                Err(e) => {
                    println!(
                        "ERR {nsvc} {log:?} {:.6000}",
                        e.to_string()
                            .chars()
                            .rev()
                            .take(3500)
                            .collect::<String>()
                            .chars()
                            .rev()
                            .collect::<String>()
                    );
                }
            }
        }
    }
}
