package ai.agenta.ai;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonParseException;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import org.jspecify.annotations.Nullable;

/** Arguments and results as native types. Numbers travel as doubles, and the keys of an object have no order. */
public final class Values {
    private static final Gson GSON = new GsonBuilder().serializeNulls().create();

    private Values() {}

    /**
     * Packs a map or a record.
     *
     * @throws IllegalArgumentException if it can't be sent
     */
    public static Struct pack(Object arguments) {
        Struct.Builder packed = Struct.newBuilder();
        try {
            String text = GSON.toJson(arguments);
            if (!StandardCharsets.UTF_8.newEncoder().canEncode(text)) {
                throw new IllegalArgumentException("a text holds half a character, which can't be sent");
            }
            JsonFormat.parser().merge(text, packed);
        } catch (InvalidProtocolBufferException | JsonParseException failure) {
            throw new IllegalArgumentException("the arguments can't be sent: " + failure.getMessage(), failure);
        }
        return packed.build();
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
