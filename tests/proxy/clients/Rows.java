import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;

/** Prints the rows of a query on patient_id >= ?, read in several of the driver's ways. */
public class Rows {
    public static void main(String[] arguments) throws Exception {
        String url = arguments[0], table = arguments[1];
        String query = "SELECT patient_id, ipp, birth_date, weight_kg, height_cm FROM " + table
            + " WHERE patient_id >= ? ORDER BY patient_id";
        // simple protocol; a new statement each time; one that is prepared and binary at once
        String[] ways = {"preferQueryMode=simple", "prepareThreshold=0", "prepareThreshold=-1"};
        for (String way : ways) {
            try (Connection connection = DriverManager.getConnection(url + "&" + way)) {
                connection.setAutoCommit(false);
                try (PreparedStatement statement = connection.prepareStatement(query)) {
                    // portals that are fetched from 50 rows at a time
                    statement.setFetchSize(50);
                    for (int first : new int[] {1, 120}) {
                        statement.setInt(1, first);
                        print(way + " " + first, statement.executeQuery());
                    }
                }
                connection.commit();
                try (Statement statement = connection.createStatement()) {
                    statement.executeUpdate("CREATE TEMP TABLE note (id integer, word text)");
                }
                try (PreparedStatement insert =
                        connection.prepareStatement("INSERT INTO note VALUES (?, ?)")) {
                    for (int id = 0; id < 20; id++) {
                        insert.setInt(1, id);
                        insert.setString(2, "word " + id);
                        insert.addBatch();
                    }
                    insert.executeBatch();
                }
                try (Statement statement = connection.createStatement()) {
                    print("notes", statement.executeQuery("SELECT count(*), min(word) FROM note"));
                }
                connection.rollback();
            }
        }
    }

    private static void print(String title, ResultSet rows) throws Exception {
        System.out.println(title);
        int columns = rows.getMetaData().getColumnCount();
        while (rows.next()) {
            StringBuilder line = new StringBuilder();
            for (int column = 1; column <= columns; column++) {
                line.append(rows.getString(column)).append('\t');
            }
            System.out.println(line);
        }
    }
}
