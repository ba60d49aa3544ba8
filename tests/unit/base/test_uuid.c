/*
 * test_uuid.c - UUIDs: text and back, version bits, bad forms.
 */
#include "base/uuid.h"

#include <criterion/criterion.h>

#include <cfsrepl/error.h>

#include "base/bytes.h"

Test(uuid, text_and_back)
{
    const char *text = "0f8fad5b-d9cb-469f-a165-70867728950e";
    struct cfsr_uuid uuid;
    char again[CFSR_UUID_TEXT_LEN];

    cr_assert_eq(cfsr_uuid_parse(text, &uuid), 0);
    cr_assert_eq(uuid.bytes[0], 0x0f);
    cr_assert_eq(uuid.bytes[15], 0x0e);
    cfsr_uuid_format(&uuid, again);
    cr_assert_str_eq(again, text);
    cr_assert_eq(cfsr_uuid_parse("0F8FAD5B-D9CB-469F-A165-70867728950E", &uuid), 0);
    cfsr_uuid_format(&uuid, again);
    cr_assert_str_eq(again, text);
}

Test(uuid, random_ones_carry_version_and_variant)
{
    uint8_t random[16];
    struct cfsr_uuid uuid;

    for (unsigned fill = 0; fill < 256; fill += 51) {
        for (unsigned i = 0; i < 16; i++)
            random[i] = (uint8_t)fill;
        cfsr_uuid_from_random(random, &uuid);
        cr_assert_eq(uuid.bytes[6] >> 4, 4);
        cr_assert_eq(uuid.bytes[8] >> 6, 2);
        cr_assert_eq(uuid.bytes[0], fill);
        cr_assert_eq(uuid.bytes[15], fill);
        cr_assert_not(cfsr_uuid_is_zero(&uuid));
    }
}

Test(uuid, equal_and_zero)
{
    struct cfsr_uuid a = {{0}};
    struct cfsr_uuid b = {{0}};

    cr_assert(cfsr_uuid_is_zero(&a));
    cr_assert(cfsr_uuid_equal(&a, &b));
    b.bytes[15] = 1;
    cr_assert_not(cfsr_uuid_is_zero(&b));
    cr_assert_not(cfsr_uuid_equal(&a, &b));
}

Test(uuid, bad_forms_are_refused)
{
    static const char *const bad[] = {
        "",
        "0f8fad5b",
        "0f8fad5b-d9cb-469f-a165-70867728950",
        "0f8fad5b-d9cb-469f-a165-70867728950e0",
        "0f8fad5bd9cb469fa16570867728950e",
        "0f8fad5b-d9cb-469f-a165-70867728950g",
        "0f8fad5bd-9cb-469f-a165-70867728950e",
        "{0f8fad5b-d9cb-469f-a165-70867728950e}",
    };
    struct cfsr_uuid uuid = {{9}};

    for (size_t i = 0; i < CFSR_ARRAY_LEN(bad); i++)
        cr_assert_eq(cfsr_uuid_parse(bad[i], &uuid), -CFSR_E_FORMAT, "'%s'", bad[i]);
    cr_assert_eq(uuid.bytes[0], 9, "outputs are set on success only");
}
