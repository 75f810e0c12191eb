package ai.agenta.ai;

import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;

/**
 * A type with its arguments, for {@link Values#unpack(com.google.protobuf.Value, TypeRef)}: {@code new
 * TypeRef<List<String>>() {}}.
 *
 * @param <T> the type
 */
public abstract class TypeRef<T> {
    private final Type type;

    /** For a subclass without a body that names the type. */
    protected TypeRef() {
        if (!(getClass().getGenericSuperclass() instanceof ParameterizedType generic)) {
            throw new IllegalStateException("name the type: new TypeRef<List<String>>() {}");
        }
        type = generic.getActualTypeArguments()[0];
    }

    final Type type() {
        return type;
    }
}
