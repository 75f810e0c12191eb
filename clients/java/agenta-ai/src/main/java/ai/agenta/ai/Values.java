package ai.agenta.ai;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonElement;
import com.google.gson.JsonParseException;
import com.google.gson.JsonPrimitive;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import java.lang.reflect.Type;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Arguments and results as native types. Numbers travel as doubles, and the keys of an object have no order. */
public final class Values {
    private static final Gson GSON = new GsonBuilder().serializeNulls().create();
    /** The deepest nesting of arguments: protobuf reads at most 100 nested messages, and each level takes three. */
    private static final int MAX_DEPTH = 32;

    private static final Pattern INTEGER = Pattern.compile("-?\\d+");

    private Values() {}

    /**
     * Packs a map or a record.
     *
     * @throws IllegalArgumentException if it can't be sent, for example because it has a number that a double can't hold, or
     *     contains itself
     */
    public static Struct pack(Object arguments) {
        Struct.Builder packed = Struct.newBuilder();
        try {
            JsonElement json = GSON.toJsonTree(arguments);
            check(json, "arguments", MAX_DEPTH);
            String text = GSON.toJson(json);
            if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
                throw new IllegalArgumentException("a text holds half a character, which can't be sent");
            }
            JsonFormat.parser().merge(text, packed);
        } catch (InvalidProtocolBufferException | JsonParseException failure) {
            throw new IllegalArgumentException("the arguments can't be sent: " + failure.getMessage(), failure);
        } catch (StackOverflowError endless) { // of Gson
            throw new IllegalArgumentException("the arguments are nested too deep to be sent, or contain themselves");
        }
        return packed.build();
    }

    private static void check(JsonElement value, String path, int depth) {
        if ((value.isJsonObject() || value.isJsonArray()) && depth == 0) {
            String begin = path.substring(0, Math.min(path.length(), 80));
            throw new IllegalArgumentException(begin + "…: nested too deep to be sent: send it as a string of JSON");
        }
        if (value.isJsonObject()) {
            value.getAsJsonObject()
                    .entrySet()
                    .forEach(each -> check(each.getValue(), path + "." + each.getKey(), depth - 1));
        } else if (value.isJsonArray()) {
            int index = 0;
            for (JsonElement each : value.getAsJsonArray()) {
                check(each, path + "[" + index++ + "]", depth - 1);
            }
        } else if (value instanceof JsonPrimitive primitive && primitive.isNumber()) {
            checkNumber(primitive.getAsString(), path);
        }
    }

    private static void checkNumber(String number, String path) {
        double sent = Double.parseDouble(number);
        boolean integer = INTEGER.matcher(number).matches();
        if (Double.isInfinite(sent) || (integer && new BigDecimal(sent).compareTo(new BigDecimal(number)) != 0)) {
            throw new IllegalArgumentException(path + ": the " + (integer ? "integer " : "number ") + number
                    + " doesn't fit a double: send it as a string");
        }
    }

    /**
     * Puts a value into a type, a record for example. With {@code Object.class} it becomes what it is: a map, a list, a
     * double, a string, a boolean or null.
     *
     * @return the value; null if it is JSON's null
     * @throws IllegalArgumentException if it doesn't fit
     */
    public static <T> @Nullable T unpack(Value value, Class<T> type) {
        return unpack(value, (Type) type);
    }

    /**
     * Puts a value into a generic type, such as a list of records.
     *
     * @return the value; null if it is JSON's null
     * @throws IllegalArgumentException if it doesn't fit
     */
    public static <T> @Nullable T unpack(Value value, TypeRef<T> type) {
        return unpack(value, type.type());
    }

    private static <T> @Nullable T unpack(Value value, Type type) {
        try {
            return GSON.fromJson(JsonFormat.printer().print(value), type);
        } catch (InvalidProtocolBufferException | JsonParseException failure) {
            throw new IllegalArgumentException("the result doesn't fit: " + failure.getMessage(), failure);
        }
    }
}
