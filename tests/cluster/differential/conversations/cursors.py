"""Cursors of SQL."""

from __future__ import annotations

from functools import partial

from tests.cluster.differential.vocabulary import SYNC, C, Go, Q, X, bind, close, describe, execute, parse

AREA = "cursors"
B = partial(C, blocks=True)
DECLARE = "declare c cursor for select n, s from t order by n"
HELD = "declare c cursor with hold for select n, s from t order by n"

CONVERSATIONS = (
    B("declare, fetch, close", Q("begin", DECLARE, "fetch c", "fetch 2 from c", "fetch all from c", "fetch c",
      "close c", "commit")),
    B("directions", Q("begin", "declare c scroll cursor for select n from t order by n", "fetch last c",
      "fetch prior c", "fetch first c", "fetch absolute 3 c", "fetch relative -1 c", "fetch backward 2 c",
      "fetch forward all c", "fetch backward all c", "commit")),
    B("move", Q("begin", DECLARE, "move 2 in c", "fetch c", "move all in c", "fetch c", "move backward all in c",
      "commit")),
    B("no scroll", Q("begin", "declare c no scroll cursor for select n from t order by n", "fetch 2 c",
      "fetch prior c", "rollback")),
    B("binary", Q("begin", "declare c binary cursor for select n, s from t order by n", "fetch 2 c", "commit")),
    B("a cursor ends with its transaction", Q("begin", DECLARE, "commit", "fetch c")),
    C("a cursor needs a transaction", Q(DECLARE, "fetch c", "close c", "move c", "close all")),
    B("two cursors", Q("begin", DECLARE, "declare d cursor for select 'd'", "fetch c", "fetch d", "fetch c",
      "close all", "fetch c", "rollback")),
    B("a name twice", Q("begin", DECLARE, DECLARE, "rollback")),
    C("with hold", Q(HELD, "fetch 2 c", "fetch c", "close c", "fetch c")),
    B("with hold, over a commit", Q("begin", HELD, "fetch c", "commit", "fetch c", "fetch all c", "close c")),
    B("with hold, over a rollback", Q("begin", HELD, "fetch c", "rollback", "fetch c")),
    B("with hold, over another transaction", Q("begin", HELD, "commit", "begin", "fetch c", "rollback", "fetch c",
      "close c")),
    C("with hold, and discarded", Q(HELD, "fetch c", "discard all", "fetch c")),
    C("with hold, and all closed", Q(HELD, "fetch c", "close all", "fetch c")),
    C("with hold, in the extended protocol", X(HELD), X("fetch 2 from c"), X("close c"), X("fetch c")),
    C("with hold, fetched by a prepared statement", Q(HELD), Go(parse("fetch 1 from c", "f"), describe("f"), SYNC),
      *(Go(bind(name="f"), execute(), SYNC) for _ in range(3)), Q("close c"), Go(bind(name="f"), execute(), SYNC)),
    B("in the extended protocol", X("begin"), X(DECLARE), X("fetch 2 from c"), X("fetch all from c", rows=1),
      X("close c"), X("commit")),
    B("with parameters", Q("begin"), X("declare c cursor for select n from t where n > $1 order by n", "2"),
      Q("fetch all c", "commit")),
    B("a portal seen as a cursor", Q("begin"), Go(parse("select n from t order by n"), bind(portal="p"), execute(1,
      "p"), SYNC), Q("fetch 2 from p", "select name, is_holdable from pg_cursors order by 1"), Go(execute(1, "p"),
      SYNC), Q("close p"), Go(execute(1, "p"), SYNC), Q("rollback")),
    B("a cursor seen as a portal", Q("begin", DECLARE), Go(describe("c", "P"), execute(2, "c"), SYNC), Q("fetch c"),
      Go(close("c", "P"), SYNC), Q("fetch c", "rollback")),
    B("where current of", Q("insert into w values (1, 'a'), (2, 'b')", "begin",
      "declare c cursor for select * from w order by n for update", "fetch 2 c",
      "update w set s = 'x' where current of c", "commit", "select * from w order by n")),
    B("an error while fetching", Q("begin", "declare c cursor for select 1 / (3 - n) from t order by n", "fetch 2 c",
      "fetch c", "fetch c", "rollback")),
    B("savepoints", Q("begin", "savepoint a", DECLARE, "fetch c", "savepoint b", "fetch c", "rollback to b", "fetch c",
      "rollback to a", "fetch c", "rollback")),
    B("names of odd bytes", Q("begin", 'declare "C é""" cursor for select 1', 'fetch "C é"""', "fetch c",
      "rollback")),
    B("a function that gives a cursor", Q("create function open_it(refcursor) returns refcursor language plpgsql as "
      "$$ begin open $1 for select n from t order by n; return $1; end $$", "begin", "select open_it('r')",
      "fetch 2 r", "commit", "fetch r")),
)
