"""LISTEN, NOTIFY, UNLISTEN."""

from __future__ import annotations

from tests.cluster.differential.vocabulary import SYNC, C, Go, Login, Q, Settled, Until, Vanish, X, other, query, run

AREA = "notifications"

CONVERSATIONS = (
    C("one's own, at once", Q("listen news", "notify news", "notify news, 'payload'")),
    C("one's own, in one go", Q("listen news; notify news, 'a'; select 1"), Go(query("notify news, 'b'"),
      query("select 2"))),
    C("one's own, in the extended protocol", X("listen news"), X("notify news, 'x'"), X("select pg_notify($1, $2)",
      "news", "y")),
    C("in a pipeline", Q("listen news"), Go(run("notify news, '1'"), SYNC, run("select 1"), SYNC,
      run("notify news, '2'"), SYNC)),
    C("at commit", Q("listen news", "begin", "notify news, 'a'", "select 1", "notify news, 'a'", "notify news, 'b'",
      "commit"), blocks=True),
    C("not after rollback", Q("listen news", "begin", "notify news, 'a'", "rollback", "select 1"), blocks=True),
    C("listen and roll back", Q("begin", "listen news", "rollback", "notify news, 'a'", "select 1"), blocks=True),
    C("savepoints", Q("listen news", "begin", "notify news, 'a'", "savepoint s", "notify news, 'b'", "rollback to s",
      "commit"), blocks=True),
    C("unlisten", Q("listen news", "listen ch", "unlisten news", "notify news", "notify ch", "unlisten *", "notify ch",
      "select 1")),
    C("nobody listens", Q("notify news", "notify news, 'x'", "unlisten news", "unlisten *")),
    C("which channels", Q("select * from pg_listening_channels()", "listen news", "listen ch",
      "select * from pg_listening_channels()", "unlisten news", "select * from pg_listening_channels()")),
    C("discard all unlistens", Q("listen news", "discard all", "notify news", "select * from pg_listening_channels()")),
    C("from another client", Q("listen news"), other("second", Q("notify news, 'hello'")), Until("A"), Q("select 1")),
    C("many from another client", Q("listen news"), other("second", *(Q(f"notify news, '{n}'") for n in range(5))),
      *(Until("A") for _ in range(5))),
    C("several from one transaction", Q("listen news", "listen ch"), other("second",
      Q("begin; notify news, '1'; notify ch, '2'; notify news, '3'; commit")), Until("A"), Until("A"), Until("A")),
    C("while in a transaction", Q("listen news", "begin"), other("second", Q("notify news, 'late'")), Q("select 1",
      "commit"), blocks=True),
    C("two who listen", Q("listen news"), other("second", Q("listen news", "notify news, 'x'")), Until("A"),
      Q("notify news, 'y'"), other("second", Until("A"))),
    C("a listener who has left", Q("listen news"), Vanish(), Settled(), Login(),
      Q("select * from pg_listening_channels()", "notify news", "select 1")),
    C("errors", Q("listen", "notify", "notify news, 5", "listen 'x'", f"notify news, '{'x' * 9000}'",
      f"select pg_notify('{'n' * 70}', '')")),
    C("odd names", Q('listen "Ä b"', 'notify "Ä b", \'ü\'', "notify news, 'it''s'", "listen " + "n" * 70,
      "notify " + "n" * 70)),
    C("a trigger notifies",
      Q("create function tells() returns trigger language plpgsql as $$ begin perform pg_notify('news', "
      "new.n::text); return new; end $$", "create table made (n int)",
      "create trigger tells after insert on made for each row execute function tells()", "listen news",
      "insert into made values (1), (2)", "begin", "insert into made values (3)", "rollback"), blocks=True),
    C("settings while listening", Q("listen news", "set timezone = 'Asia/Tokyo'", "notify news", "reset timezone")),
)
