//! Groups of well-known artifacts whose archives do not tell them: most of those that are built
//! with Gradle or Ant. Facts of the Central Repository.

/// An artifact's name, or what it begins with up to a `-` (or `_`, if that is written), and the
/// group.
const GROUPS: &[(&str, &str)] = &[
    ("activemq", "org.apache.activemq"),
    ("ant", "org.apache.ant"),
    ("antlr4", "org.antlr"),
    ("antlr4-runtime", "org.antlr"),
    ("asm", "org.ow2.asm"),
    ("aspectjrt", "org.aspectj"),
    ("aspectjweaver", "org.aspectj"),
    ("bc-fips", "org.bouncycastle"),
    ("bcpg", "org.bouncycastle"),
    ("bcpkix", "org.bouncycastle"),
    ("bcprov", "org.bouncycastle"),
    ("bctls", "org.bouncycastle"),
    ("bcutil", "org.bouncycastle"),
    ("byte-buddy", "net.bytebuddy"),
    ("caffeine", "com.github.ben-manes.caffeine"),
    ("cglib", "cglib"),
    ("classworlds", "classworlds"),
    ("commons-beanutils", "commons-beanutils"),
    ("commons-chain", "commons-chain"),
    ("commons-cli", "commons-cli"),
    ("commons-codec", "commons-codec"),
    ("commons-collections", "commons-collections"),
    ("commons-configuration", "commons-configuration"),
    ("commons-dbcp", "commons-dbcp"),
    ("commons-digester", "commons-digester"),
    ("commons-discovery", "commons-discovery"),
    ("commons-el", "commons-el"),
    ("commons-fileupload", "commons-fileupload"),
    ("commons-httpclient", "commons-httpclient"),
    ("commons-io", "commons-io"),
    ("commons-lang", "commons-lang"),
    ("commons-logging", "commons-logging"),
    ("commons-net", "commons-net"),
    ("commons-pool", "commons-pool"),
    ("commons-validator", "commons-validator"),
    ("elasticsearch", "org.elasticsearch"),
    ("elasticsearch-rest-client", "org.elasticsearch.client"),
    ("elasticsearch-rest-high-level-client", "org.elasticsearch.client"),
    ("error_prone_annotations", "com.google.errorprone"),
    ("groovy", "org.codehaus.groovy"),
    ("grpc", "io.grpc"),
    ("guava", "com.google.guava"),
    ("h2", "com.h2database"),
    ("hazelcast", "com.hazelcast"),
    ("hibernate-core", "org.hibernate"),
    ("hibernate-entitymanager", "org.hibernate"),
    ("hibernate-validator", "org.hibernate.validator"),
    ("jakarta.annotation-api", "jakarta.annotation"),
    ("jakarta.servlet-api", "jakarta.servlet"),
    ("javax.inject", "javax.inject"),
    ("javax.servlet-api", "javax.servlet"),
    ("json-smart", "net.minidev"),
    ("jsr250-api", "javax.annotation"),
    ("jstl", "javax.servlet"),
    ("junit", "junit"),
    ("junit-jupiter", "org.junit.jupiter"),
    ("junit-platform", "org.junit.platform"),
    ("junit-vintage", "org.junit.vintage"),
    ("kafka-clients", "org.apache.kafka"),
    ("kafka-streams", "org.apache.kafka"),
    ("kafka_", "org.apache.kafka"),
    ("kotlin-reflect", "org.jetbrains.kotlin"),
    ("kotlin-stdlib", "org.jetbrains.kotlin"),
    ("kotlinx-coroutines", "org.jetbrains.kotlinx"),
    ("kotlinx-serialization", "org.jetbrains.kotlinx"),
    ("log4j-api", "org.apache.logging.log4j"),
    ("log4j-core", "org.apache.logging.log4j"),
    ("lucene", "org.apache.lucene"),
    ("mariadb-java-client", "org.mariadb.jdbc"),
    ("micrometer", "io.micrometer"),
    ("mysql-connector-j", "com.mysql"),
    ("mysql-connector-java", "mysql"),
    ("okhttp", "com.squareup.okhttp3"),
    ("okio", "com.squareup.okio"),
    ("opensearch", "org.opensearch"),
    ("opentelemetry", "io.opentelemetry"),
    ("org.eclipse.sisu.inject", "org.eclipse.sisu"),
    ("org.eclipse.sisu.plexus", "org.eclipse.sisu"),
    ("oro", "oro"),
    ("postgresql", "org.postgresql"),
    ("reactive-streams", "org.reactivestreams"),
    ("reactor-core", "io.projectreactor"),
    ("reactor-netty", "io.projectreactor.netty"),
    ("retrofit", "com.squareup.retrofit2"),
    ("spring", "org.springframework"),
    ("spring-amqp", "org.springframework.amqp"),
    ("spring-batch", "org.springframework.batch"),
    ("spring-boot", "org.springframework.boot"),
    ("spring-cloud", "org.springframework.cloud"),
    ("spring-data", "org.springframework.data"),
    ("spring-graphql", "org.springframework.graphql"),
    ("spring-hateoas", "org.springframework.hateoas"),
    ("spring-integration", "org.springframework.integration"),
    ("spring-kafka", "org.springframework.kafka"),
    ("spring-ldap", "org.springframework.ldap"),
    ("spring-plugin", "org.springframework.plugin"),
    ("spring-rabbit", "org.springframework.amqp"),
    ("spring-retry", "org.springframework.retry"),
    ("spring-security", "org.springframework.security"),
    ("spring-session", "org.springframework.session"),
    ("spring-vault", "org.springframework.vault"),
    ("spring-ws", "org.springframework.ws"),
    ("tomcat", "org.apache.tomcat"),
    ("tomcat-embed", "org.apache.tomcat.embed"),
    ("velocity", "org.apache.velocity"),
    ("velocity-engine", "org.apache.velocity"),
    ("wicket", "org.apache.wicket"),
    ("xalan", "xalan"),
    ("xercesImpl", "xerces"),
    ("xml-apis", "xml-apis"),
    ("zookeeper", "org.apache.zookeeper"),
];

/// The group of a well-known artifact; the longest beginning decides.
pub(super) fn known(artifact: &str) -> Option<&'static str> {
    GROUPS
        .iter()
        .filter(|(name, _)| {
            artifact
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-') || name.ends_with('_'))
        })
        .max_by_key(|(name, _)| name.len())
        .map(|(_, group)| *group)
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn longest_beginning() {
        fn check(artifact: &str, group: Option<&str>) {
            assert_eq!(known(artifact), group, "{artifact}");
        }
        check("spring-core", Some("org.springframework"));
        check("spring-boot-starter-web", Some("org.springframework.boot"));
        check("kafka_2.13", Some("org.apache.kafka"));
        check("kafka-avro-serializer", None);
        check("commons-lang", Some("commons-lang"));
        check("commons-lang3", None);
        check("springfox", None);
        check("", None);
    }
}
