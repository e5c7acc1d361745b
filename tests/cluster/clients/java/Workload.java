// pgjdbc: travel agents who book flights, each in a thread of its own, and then what the driver can do, one by one.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;

public final class Workload {
    private static final int AGENTS = 6;
    private static final int ROUNDS = 20;
    private static final int SECONDS = 30;

    private static String url;
    private static String user;
    private static String password;

    public static void main(String[] arguments) throws Exception {
        url = arguments[0];
        user = System.getenv("PGUSER");
        password = System.getenv("PGPASSWORD");
        System.out.println("{\"links\": " + crowd() + "}");
        for (Scene scene : List.<Scene>of(
                Workload::cursors, Workload::batches, Workload::copies, Workload::keys, Workload::types,
                Workload::savepoints, Workload::heals, Workload::listens, Workload::cancels, Workload::metadata)) {
            try (Connection client = connect()) {
                scene.play(client);
            }
        }
    }

    private interface Scene {
        void play(Connection client) throws Exception;
    }

    private static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        properties.setProperty("prepareThreshold", "1");
        properties.setProperty("socketTimeout", String.valueOf(SECONDS));
        properties.setProperty("sslmode", "disable");
        for (String option : options) {
            properties.setProperty(option.split("=", 2)[0], option.split("=", 2)[1]);
        }
        return DriverManager.getConnection(url, properties);
    }

    private static void same(Object seen, Object wanted) {
        if (!Objects.equals(seen, wanted)) {
            throw new AssertionError(seen + " is not " + wanted);
        }
    }

    /** The one row of a query. */
    private static List<Object> row(Connection client, String query, Object... values) throws SQLException {
        try (PreparedStatement statement = client.prepareStatement(query)) {
            for (int i = 0; i < values.length; i++) {
                statement.setObject(i + 1, values[i]);
            }
            try (ResultSet rows = statement.executeQuery()) {
                same(rows.next(), true);
                List<Object> seen = new ArrayList<>();
                for (int i = 1; i <= rows.getMetaData().getColumnCount(); i++) {
                    seen.add(rows.getObject(i));
                }
                same(rows.next(), false);
                return seen;
            }
        }
    }

    private static Object one(Connection client, String query, Object... values) throws SQLException {
        return row(client, query, values).get(0);
    }

    private static void run(Connection client, String sql) throws SQLException {
        try (Statement statement = client.createStatement()) {
            statement.execute(sql);
        }
    }

    private static SQLException fails(String state, Callable<?> action) throws Exception {
        try {
            action.call();
        } catch (SQLException error) {
            same(error.getSQLState(), state);
            return error;
        }
        throw new AssertionError("no " + state);
    }

    // --- the agents ----------------------------------------------------------------------------------------------

    private static List<Set<Integer>> crowd() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(AGENTS);
        try {
            CyclicBarrier barrier = new CyclicBarrier(AGENTS);
            List<Future<Set<Integer>>> agents = new ArrayList<>();
            for (int number = 0; number < AGENTS; number++) {
                int agent = number;
                agents.add(threads.submit(() -> agent(agent, barrier)));
            }
            List<Set<Integer>> links = new ArrayList<>();
            for (Future<Set<Integer>> agent : agents) {
                links.add(agent.get());
            }
            return links;
        } finally {
            threads.shutdownNow();
        }
    }

    private static Set<Integer> agent(int agent, CyclicBarrier barrier) throws Exception {
        Set<Integer> links = new TreeSet<>();
        try (Connection client = connect("ApplicationName=agent " + agent)) {
            run(client, "set statement_timeout = '" + (agent + 20) + "s'");
            barrier.await(SECONDS, TimeUnit.SECONDS);
            int booked = 0;
            for (int round = 0; round < ROUNDS; round++) {
                booked += book(client, agent, round);
                same(one(client, "select count(*)::int from booking where agent = " + agent + " and price > ?", 0), booked);
                same(row(client, "select current_setting('application_name'), current_setting('statement_timeout')"),
                        List.of("agent " + agent, (agent + 20) + "s"));
                links.add((Integer) one(client, "select pg_backend_pid()"));
            }
            barrier.await(SECONDS, TimeUnit.SECONDS);
        }
        return links;
    }

    /** Books a flight in a transaction; every fourth is given up. */
    private static int book(Connection client, int agent, int round) throws Exception {
        client.setAutoCommit(false);
        String insert = "insert into booking (agent, flight, price, seats) values (" + agent + ", ?, ?, ?)";
        try (PreparedStatement statement = client.prepareStatement(insert)) {
            statement.setString(1, "flight " + round);
            statement.setBigDecimal(2, new java.math.BigDecimal("10.50"));
            statement.setArray(3, client.createArrayOf("int4", new Integer[] {round, null}));
            same(statement.executeUpdate(), 1);
        }
        Savepoint before = client.setSavepoint("before");
        fails("22012", () -> one(client, "select 1 / ?::int", 0));
        client.rollback(before);
        boolean kept = round % 4 != 3;
        if (kept) {
            client.commit();
        } else {
            client.rollback();
        }
        client.setAutoCommit(true);
        return kept ? 1 : 0;
    }

    // --- one by one ----------------------------------------------------------------------------------------------

    private static void cursors(Connection client) throws Exception {
        client.setAutoCommit(false);
        try (PreparedStatement statement = client.prepareStatement("select n, word from numbers where n <= ? order by n")) {
            statement.setFetchSize(70);
            statement.setInt(1, 500);
            try (ResultSet rows = statement.executeQuery()) {
                int n = 0;
                while (rows.next()) {
                    same(rows.getInt(1), ++n);
                    same(rows.getString(2), "word " + n);
                    if (n % 100 == 0) { // another statement between two portions of the portal
                        same(one(client, "select word from numbers where n = ?", n), "word " + n);
                    }
                }
                same(n, 500);
            }
        }
        client.commit();
    }

    private static void batches(Connection unused) throws Exception {
        try (Connection client = connect("reWriteBatchedInserts=true")) {
            run(client, "truncate scratch");
            try (PreparedStatement statement = client.prepareStatement("insert into scratch values (?, ?)")) {
                for (int n = 0; n < 1000; n++) {
                    statement.setInt(1, n);
                    statement.setString(2, "batch " + n);
                    statement.addBatch();
                }
                same(statement.executeBatch().length, 1000);
            }
            same(row(client, "select count(*)::int, sum(n)::int from scratch"), List.of(1000, 499500));
            client.setAutoCommit(false);
            try (PreparedStatement statement = client.prepareStatement("update scratch set n = 1 / ? where n = ?")) {
                for (int n = 3; n >= 0; n--) {
                    statement.setInt(1, n);
                    statement.setInt(2, n);
                    statement.addBatch();
                }
                fails("22012", statement::executeBatch);
            }
            client.rollback();
            same(one(client, "select sum(n)::int from scratch"), 499500);
            client.commit();
        }
    }

    private static void copies(Connection client) throws Exception {
        run(client, "truncate scratch");
        CopyManager copy = client.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 0; n < 3000; n++) {
            lines.append(n).append("\tline ").append(n).append('\n');
        }
        same(copy.copyIn("copy scratch from stdin", new StringReader(lines.toString())), 3000L);
        StringWriter copied = new StringWriter();
        copy.copyOut("copy (select * from scratch order by n) to stdout", copied);
        same(copied.toString(), lines.toString());
        fails("22P02", () -> copy.copyIn("copy scratch from stdin", new StringReader("x\ty\n")));
        same(one(client, "select count(*)::int from scratch"), 3000);
    }

    private static void keys(Connection client) throws Exception {
        String insert = "insert into booking (agent, flight) values (99, ?)";
        List<Integer> generated = new ArrayList<>();
        try (PreparedStatement statement = client.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (String flight : List.of("a", "b", "c")) {
                statement.setString(1, flight);
                statement.addBatch();
            }
            statement.executeBatch();
            try (ResultSet keys = statement.getGeneratedKeys()) {
                while (keys.next()) {
                    generated.add(keys.getInt("id"));
                }
            }
        }
        same(one(client, "select array_agg(id order by id)::text from booking where agent = 99"),
                generated.toString().replace("[", "{").replace("]", "}").replace(" ", ""));
    }

    private static void types(Connection client) throws Exception {
        for (int n = 0; n < 6; n++) { // text at first, then binary
            try (PreparedStatement statement = client.prepareStatement(
                    "select ?::int8, ?::text, ?::bytea, ?::timestamptz, ?::float8[], ?::uuid")) {
                UUID id = new UUID(1, n);
                statement.setLong(1, Long.MAX_VALUE - n);
                statement.setString(2, "é" + n);
                statement.setBytes(3, new byte[] {0, (byte) 255, (byte) n});
                statement.setTimestamp(4, Timestamp.valueOf("2024-02-29 12:00:00"));
                statement.setArray(5, client.createArrayOf("float8", new Double[] {1.5, null}));
                statement.setObject(6, id);
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    same(rows.getLong(1), Long.MAX_VALUE - n);
                    same(rows.getString(2), "é" + n);
                    same(Arrays.toString(rows.getBytes(3)), "[0, -1, " + n + "]");
                    same(rows.getTimestamp(4), Timestamp.valueOf("2024-02-29 12:00:00"));
                    same(Arrays.toString((Object[]) rows.getArray(5).getArray()), "[1.5, null]");
                    same(rows.getObject(6), id);
                }
            }
        }
    }

    private static void savepoints(Connection unused) throws Exception {
        try (Connection client = connect("autosave=always", "cleanupSavepoints=true")) {
            run(client, "truncate scratch");
            client.setAutoCommit(false);
            client.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            for (int n = 0; n < 5; n++) {
                run(client, "insert into scratch values (" + n + ")");
                fails("42P01", () -> one(client, "select * from nowhere"));
            }
            same(one(client, "show transaction_isolation"), "serializable");
            client.commit();
            client.setReadOnly(true);
            fails("25006", () -> {
                run(client, "insert into scratch values (9)");
                return null;
            });
            client.rollback();
            client.setReadOnly(false);
            same(one(client, "select count(*)::int from scratch"), 5);
            client.rollback();
        }
    }

    /** pgjdbc prepares anew, by itself, what a change of a table or DEALLOCATE has made useless. */
    private static void heals(Connection client) throws Exception {
        run(client, "drop table if exists changing; create table changing as select 1 as n");
        try (PreparedStatement statement = client.prepareStatement("select * from changing")) {
            for (int columns = 1; columns <= 3; columns++) {
                for (int n = 0; n < 3; n++) {
                    try (ResultSet rows = statement.executeQuery()) {
                        same(rows.getMetaData().getColumnCount(), columns);
                    }
                }
                run(client, "alter table changing add c" + columns + " text");
                if (columns == 2) {
                    run(client, "deallocate all");
                }
            }
        }
    }

    private static void listens(Connection client) throws Exception {
        run(client, "listen flights");
        try (Connection speaker = connect()) {
            for (int n = 0; n < 10; n++) {
                one(speaker, "select pg_notify('flights', ?)", "gate " + n);
            }
        }
        List<String> heard = new ArrayList<>();
        while (heard.size() < 10) {
            PGNotification[] got = client.unwrap(PGConnection.class).getNotifications(SECONDS * 1000);
            if (got == null || got.length == 0) {
                throw new AssertionError("heard only " + heard);
            }
            for (PGNotification each : got) {
                heard.add(each.getParameter());
            }
        }
        for (int n = 0; n < 10; n++) {
            same(heard.get(n), "gate " + n);
        }
        run(client, "unlisten *");
    }

    private static void cancels(Connection client) throws Exception {
        try (Statement sleeping = client.createStatement()) {
            sleeping.setQueryTimeout(1);
            fails("57014", () -> sleeping.execute("select pg_sleep(66)"));
        }
        same(one(client, "select 1"), 1);
    }

    private static void metadata(Connection client) throws Exception {
        DatabaseMetaData data = client.getMetaData();
        same(data.getDatabaseProductName(), "PostgreSQL");
        Map<String, String> columns = new LinkedHashMap<>();
        try (ResultSet rows = data.getColumns(null, "public", "booking", null)) {
            while (rows.next()) {
                columns.put(rows.getString("COLUMN_NAME"), rows.getString("TYPE_NAME"));
            }
        }
        same(columns.toString(), "{id=serial, agent=int4, flight=text, price=numeric, seats=_int4}");
        try (ResultSet rows = data.getPrimaryKeys(null, "public", "booking")) {
            same(rows.next(), true);
            same(rows.getString("COLUMN_NAME"), "id");
        }
        List<String> tables = new ArrayList<>();
        try (ResultSet rows = data.getTables(null, "public", "%", new String[] {"TABLE"})) {
            while (rows.next()) {
                tables.add(rows.getString("TABLE_NAME"));
            }
        }
        same(tables, List.of("booking", "changing", "numbers", "scratch"));
    }
}
