//! Commands that wait for the engine.

use super::*;

#[test]
fn requests_that_wait_share_one_reload_and_later_ones_do_not() {
    let (sender, mut commands) = mpsc::channel(COMMANDS_WAITING_MAX);
    let ask = || {
        let (answer, asked) = oneshot::channel();
        sender.try_send(Command::Reload(answer)).unwrap();
        asked
    };
    let waiting: Vec<_> = (0..COMMANDS_WAITING_MAX).map(|_| ask()).collect();
    let Ok(Command::Reload(first)) = commands.try_recv() else {
        panic!("one was sent");
    };
    let answers = sharing(first, &mut commands, &mut VecDeque::new());
    let mut later = ask();
    assert_eq!(answers.len(), waiting.len());
    let done = Applied {
        detail: "done".to_owned(),
        clients: 0,
        warnings: Vec::new(),
    };
    for answer in answers {
        answer.send(Ok(done.clone())).unwrap();
    }
    for mut asked in waiting {
        assert_eq!(asked.try_recv().unwrap(), Ok(done.clone()));
    }
    assert!(later.try_recv().is_err());
}
