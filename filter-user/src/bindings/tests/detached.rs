//! While nothing judges packets: what lets nobody in is taken, and the rest of its group is refused.

use bytes::Bytes;

use super::fixture::*;
use crate::bindings::refusal::Code;
use crate::bindings::requests::*;

#[tokio::test]
async fn what_revokes_is_durable_while_the_filter_is_detached_and_nothing_else_is_taken() {
    let f = start();
    for at in 0..8 {
        let name = format!("key-{at}");
        f.put(&name, &body("192.0.2.1", 600)).await.unwrap();
    }
    f.kernel.held.lock().unwrap().detached = true;
    // Of one group as well.
    let mut asked = Vec::new();
    for at in 0..16 {
        let bindings = f.bindings.clone();
        asked.push(tokio::spawn(async move {
            let credential = format!("key-{at}");
            let publisher = "gateway".to_owned();
            if at < 4 {
                let delete = Delete {
                    publisher,
                    credential,
                    row_version: None,
                    conditions: Conditions::default(),
                };
                let answer = bindings.delete(&actor("gateway"), delete).await;
                return answer
                    .map(|answer| answer.removed)
                    .map_err(|refusal| refusal.code);
            }
            let put = Put {
                publisher,
                credential,
                body: Bytes::from(body("192.0.2.9", 600)),
                conditions: Conditions::default(),
            };
            let answer = bindings.put(&actor("gateway"), put).await;
            answer.map(|_| true).map_err(|refusal| refusal.code)
        }));
    }
    let deny = PutDeny {
        name: "abuse".to_owned(),
        body: Bytes::from_static(br#"{"sources": ["192.0.2.9"]}"#),
    };
    f.bindings.put_deny(&actor("gateway"), deny).await.unwrap();
    for (at, asked) in asked.into_iter().enumerate() {
        let expected = if at < 4 { Ok(true) } else { Err(Code::Unavailable) };
        assert_eq!(asked.await.unwrap(), expected, "key-{at}");
    }
    let f = f.restart().await;
    let owners: Vec<String> = (4..8).map(|at| format!("binding/gateway/key-{at}")).collect();
    assert_eq!(f.kernel.owners(), owners);
    assert!(f.kernel.held.lock().unwrap().denies.contains_key("abuse"));
    assert!(
        f.list("gateway")
            .await
            .iter()
            .all(|binding| binding.sources != ["192.0.2.9/32".parse().unwrap()])
    );
}
