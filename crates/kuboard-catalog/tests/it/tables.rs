//! What each call gives after which others.

use crate::{
    harness::{World, both},
    script::check,
};

both![
    blobs_are_announced_leased_and_unlinked,
    leases_are_renewed_in_steps,
    blobs_are_mounted_across_hosted_repositories,
    a_hosted_manifest_needs_its_blobs_children_and_own_bytes,
    putting_a_manifest_again_changes_nothing,
    tags_move_and_go_with_their_manifest,
    tags_are_listed_byte_by_byte_in_pages,
    referrers_are_listed_by_age_and_type,
    repositories_are_listed_by_kind_in_pages,
    cached_repositories_take_and_forget_anything,
    a_name_is_of_one_kind,
    a_sweep_takes_what_nothing_holds,
    a_sweep_keeps_what_manifests_hold_until_they_go,
    a_sweep_keeps_content_that_another_repository_holds,
    a_sweep_tries_failed_removals_again,
    a_sweep_drops_empty_repositories,
    a_deleted_manifest_lets_its_bytes_go,
    a_sweep_works_in_batches,
    untagged_manifests_go_when_nothing_names_them,
    counts_pins_and_keys,
    text_with_nul_is_refused_or_not_found,
];

async fn blobs_are_announced_leased_and_unlinked(world: World) {
    check(
        &world.catalog,
        "blob team/app a => none
         tags team/app => none
         find a => none
         announce team/app a size=3 lease=100 => ok
         blob team/app a => 3 bytes, lease 100
         tags team/app => nothing
         linked team/app a => true
         linked team/app b => false
         linked other a => false
         announce team/app a size=3 lease=50 => ok
         blob team/app a => 3 bytes, lease 100
         announce team/app a size=3 lease=150 => ok
         blob team/app a => 3 bytes, lease 150
         find a => 3 bytes in team/app
         hosted => a
         unlink team/app b => false
         unlink other a => false
         unlink team/app a => true
         unlink team/app a => false
         blob team/app a => none
         find a => none",
    )
    .await;
}

async fn leases_are_renewed_in_steps(world: World) {
    check(
        &world.catalog,
        "renew team/app a lease=1 => false
         announce team/app a lease=5 => ok
         renew team/app a lease=4 => true
         blob team/app a => 10 bytes, lease 5
         renew team/app a lease=60001 => true
         blob team/app a => 10 bytes, lease 120000
         renew team/app a lease=120000 => true
         blob team/app a => 10 bytes, lease 120000
         renew team/app b lease=1 => false
         link docker.io/library/alpine a => ok
         renew docker.io/library/alpine a lease=5 => true
         blob docker.io/library/alpine a => 0 bytes, lease 0",
    )
    .await;
}

async fn blobs_are_mounted_across_hosted_repositories(world: World) {
    check(
        &world.catalog,
        "announce one a size=7 lease=5 => ok
         mount one two b lease=9 => none
         mount nowhere two a lease=9 => none
         tags two => none
         mount one two a lease=9 => 7 bytes
         blob two a => 7 bytes, lease 9
         mount one two a lease=4 => 7 bytes
         blob two a => 7 bytes, lease 9
         unlink one a => true
         mount one three a => none
         mount two three a => 7 bytes
         link docker.io/x b => ok
         mount docker.io/x two b => none
         mount two docker.io/x a => Conflict
         find b => none",
    )
    .await;
}

async fn a_hosted_manifest_needs_its_blobs_children_and_own_bytes(world: World) {
    check(
        &world.catalog,
        "put r m blobs=b,a => missing b a m
         tags r => none
         announce r a => ok
         put r m blobs=b,a,b,a => missing b m
         announce r b => ok
         announce elsewhere m => ok
         put r m blobs=b,a => missing m
         announce r m => ok
         put r m blobs=b,a tags=v1 => stored
         manifest r m => image 10 None None
         manifest r a => none
         manifest elsewhere m => none
         blob r a => 10 bytes, lease 0, referenced
         push elsewhere i children=m => missing m
         push r i children=m,n media=index => missing n
         push r i children=a media=index => missing a
         push r i children=m media=index => stored
         manifest r i => index 10 None None
         push r e => stored
         hosted => a! b! e! i! m!",
    )
    .await;
}

async fn putting_a_manifest_again_changes_nothing(world: World) {
    check(
        &world.catalog,
        "announce r a => ok
         push r m blobs=a tags=v1 at=5 => stored
         sweep now=9 => unlinked 1, removed nothing
         put r m blobs=a tags=v1 at=6 => stored
         put r m blobs=a tags=v2,v2 at=7 => stored
         resolve r v1 => m image 10 updated 5 checked 6
         resolve r v2 => m image 10 updated 7 checked 7
         counts => 1 hosted, 0 cached, 2 tags, 1 manifests, 2 contents of 20 bytes
         unlink r a => true
         put r m blobs=a => missing a",
    )
    .await;
}

async fn tags_move_and_go_with_their_manifest(world: World) {
    check(
        &world.catalog,
        "resolve r v1 => none
         point r v1 m => Conflict
         tags r => none
         push r m tags=v1,latest => stored
         push r n tags=latest at=2 => stored
         resolve r v1 => m image 10 updated 1 checked 1
         resolve r latest => n image 10 updated 2 checked 2
         point r latest n at=3 etag=x => ok
         resolve r latest => n image 10 updated 2 checked 3 x
         put r n tags=latest at=4 => stored
         resolve r latest => n image 10 updated 2 checked 4 x
         point r latest m at=5 => ok
         resolve r latest => m image 10 updated 5 checked 5
         untag r latest => true
         untag r latest => false
         untag nowhere latest => false
         tags r => v1
         manifest r m => image 10 None None
         delete r m => true
         delete r m => false
         delete nowhere m => false
         tags r => nothing
         resolve r v1 => none
         manifest r n => image 10 None None",
    )
    .await;
}

async fn tags_are_listed_byte_by_byte_in_pages(world: World) {
    check(
        &world.catalog,
        "push r m tags=b,a,B,A,_x,a-b,a.b,ab,10,9 => stored
         push other m tags=c => stored
         tags r => 10 9 A B _x a a-b a.b ab b
         tags r limit=3 => 10 9 A
         tags r after=A limit=2 => B _x
         tags r after=a-a => a-b a.b ab b
         tags r after=b => nothing
         tags r limit=0 => nothing
         tags nowhere => none",
    )
    .await;
}

async fn referrers_are_listed_by_age_and_type(world: World) {
    check(
        &world.catalog,
        "referrers r s => nothing
         push r p subject=s type=sbom at=3 size=5 note=hello => stored
         push r q subject=s type=signature at=2 => stored
         push r t subject=s at=4 media=other => stored
         push r u subject=p type=sbom => stored
         push elsewhere v subject=s type=sbom => stored
         referrers r s => q:image:10:signature: p:image:5:sbom:hello t:other:10:-:
         referrers r s type=sbom => p:image:5:sbom:hello
         referrers r s type=SBOM => nothing
         referrers r p => u:image:10:sbom:
         push r s => stored
         delete r s => true
         referrers r s type=signature => q:image:10:signature:
         delete r q => true
         referrers r s type=signature => nothing",
    )
    .await;
}

async fn repositories_are_listed_by_kind_in_pages(world: World) {
    check(
        &world.catalog,
        "repositories => nothing
         announce b/b a => ok
         announce b-b a => ok
         announce a a => ok
         link docker.io/b a => ok
         repositories => a b-b b/b docker.io/b
         repositories kind=hosted => a b-b b/b
         repositories kind=cached => docker.io/b
         repositories limit=2 => a b-b
         repositories after=b-b limit=1 => b/b
         repositories kind=hosted after=b-b => b/b
         repositories kind=cached after=docker.io/b => nothing",
    )
    .await;
}

async fn cached_repositories_take_and_forget_anything(world: World) {
    check(
        &world.catalog,
        "point d/x latest m at=5 etag=e cached => ok
         resolve d/x latest => none
         tags d/x => latest
         put d/x m blobs=a,b children=c type=t subject=s tags=latest at=6 cached => stored
         resolve d/x latest => m image 10 updated 5 checked 6 e
         put d/x m blobs=a,b children=c type=t subject=s cached => stored
         linked d/x a => false
         linked d/x c => false
         linked d/x m => true
         linked d/x s => false
         referrers d/x s => m:image:10:t:
         link d/x z a z => ok
         link d/y a => ok
         announce hosted a => ok
         announce d/x k size=4 lease=9 cached => ok
         blob d/x k => 4 bytes, lease 0
         find z => none
         hosted => a
         sweep now=0 => unlinked 0, removed nothing
         forget a => ok
         linked d/x a => false
         linked d/y a => false
         linked hosted a => true
         push hosted m tags=latest => stored
         forget m => ok
         manifest d/x m => none
         tags d/x => nothing
         linked d/x m => false
         linked d/x b => false
         manifest hosted m => image 10 None None
         tags hosted => latest
         forget nothing => ok
         put d/y m tags=v1 cached => stored
         delete d/y m => true
         tags d/y => nothing",
    )
    .await;
}

async fn a_name_is_of_one_kind(world: World) {
    check(
        &world.catalog,
        "announce r a => ok
         link r a => Conflict
         announce r a cached => Conflict
         put r m cached => Conflict
         point r v1 m cached => Conflict
         link d/x a => ok
         announce d/x b => Conflict
         push d/x m => Conflict
         counts => 1 hosted, 1 cached, 0 tags, 0 manifests, 1 contents of 10 bytes",
    )
    .await;
}

async fn a_sweep_takes_what_nothing_holds(world: World) {
    check(
        &world.catalog,
        "announce r a size=3 lease=10 => ok
         announce r b size=5 lease=20 => ok
         announce r c lease=30 => ok
         sweep now=10 => unlinked 0, removed nothing
         sweep now=21 => unlinked 2, removed a b (8 bytes)
         blob r a => none
         hosted => c
         renew r b lease=99 => false
         sweep now=21 => unlinked 0, removed nothing
         announce r a size=3 lease=40 => ok
         renew r c lease=50 => true
         sweep now=41 => unlinked 1, removed a (3 bytes)
         hosted => c",
    )
    .await;
}

async fn a_sweep_keeps_what_manifests_hold_until_they_go(world: World) {
    check(
        &world.catalog,
        "announce r a => ok
         announce r b => ok
         push r m blobs=a,b => stored
         push r n blobs=b => stored
         push r i children=m media=index tags=v1 => stored
         sweep now=9 => unlinked 2, removed nothing
         hosted => a! b! i! m! n!
         blob r a => 10 bytes, lease 0, referenced
         announce r a lease=50 => ok
         blob r a => 10 bytes, lease 50, referenced
         sweep now=60 => unlinked 0, removed nothing
         blob r a => 10 bytes, lease 0, referenced
         delete r m => true
         blob r a => 10 bytes, lease 0
         sweep now=9 => unlinked 1, removed a (10 bytes)
         hosted => b! i! m! n!
         delete r n => true
         sweep now=9 => unlinked 1, removed b n (20 bytes)
         delete r i => true
         sweep now=9 => unlinked 1, removed i m (20 bytes), 1 repositories
         hosted => nothing
         counts => 0 hosted, 0 cached, 0 tags, 0 manifests, 0 contents of 0 bytes",
    )
    .await;
}

async fn a_sweep_keeps_content_that_another_repository_holds(world: World) {
    check(
        &world.catalog,
        "announce one a => ok
         mount one two a lease=100 => 10 bytes
         link d/x a => ok
         sweep now=9 => unlinked 1, removed nothing, 1 repositories
         hosted => a
         announce three a => ok
         push three m => stored
         announce one m lease=5 => ok
         unlink two a => true
         sweep now=9 => unlinked 3, removed a (10 bytes), 2 repositories
         linked d/x a => true
         hosted => m!
         delete three m => true
         sweep now=9 => unlinked 0, removed m (10 bytes), 1 repositories",
    )
    .await;
}

async fn a_sweep_tries_failed_removals_again(world: World) {
    check(
        &world.catalog,
        "announce r a => ok
         announce r b => ok
         announce r c => ok
         sweep now=9 fail=b => unlinked 3, removed a c (20 bytes), 1 repositories, 1 failed
         hosted => b
         sweep now=9 fail=b => unlinked 0, removed nothing, 1 failed
         announce r b => ok
         hosted => b
         sweep now=0 => unlinked 0, removed nothing
         sweep now=9 => unlinked 1, removed b (10 bytes), 1 repositories",
    )
    .await;
}

async fn a_sweep_drops_empty_repositories(world: World) {
    check(
        &world.catalog,
        "announce a x lease=5 => ok
         announce b x => ok
         announce c x => ok
         link d/x y => ok
         point e/x v1 m cached => ok
         unlink b x => true
         forget y => ok
         tags b => nothing
         sweep now=3 batch=1 => unlinked 1, removed nothing, 3 repositories
         repositories => a e/x
         tags b => none
         sweep now=6 => unlinked 1, removed x (10 bytes), 1 repositories
         announce b x => ok
         tags b => nothing",
    )
    .await;
}

async fn a_deleted_manifest_lets_its_bytes_go(world: World) {
    check(
        &world.catalog,
        "announce r m lease=50 => ok
         put r m tags=v1 => stored
         delete r m => true
         sweep now=9 => unlinked 0, removed nothing
         blob r m => 10 bytes, lease 50
         sweep now=60 => unlinked 1, removed m (10 bytes), 1 repositories
         push r m => stored
         sweep now=9 => unlinked 1, removed nothing
         put r m => stored
         delete r m => true
         put r m => missing m
         sweep now=9 => unlinked 0, removed m (10 bytes), 1 repositories",
    )
    .await;
}

async fn a_sweep_works_in_batches(world: World) {
    let script: String = (0..23).map(|n| format!("announce r{} n{n} => ok\n", n % 3)).collect();
    check(&world.catalog, &script).await;
    let removed = {
        let mut names: Vec<String> = (0..23).map(|n| format!("n{n}")).collect();
        names.sort();
        names.join(" ")
    };
    let swept = format!(
        "sweep now=9 batch=4 => unlinked 23, removed {removed} (230 bytes), 3 repositories"
    );
    check(&world.catalog, &swept).await;
}

async fn untagged_manifests_go_when_nothing_names_them(world: World) {
    check(
        &world.catalog,
        "push r a at=1 => stored
         push r b at=1 tags=v1 => stored
         push r c at=1 => stored
         push r i at=1 children=c media=index => stored
         push r s at=1 subject=a => stored
         push r t at=1 subject=b => stored
         push r u at=9 => stored
         put d/x a at=1 cached => stored
         untagged before=1 => 0
         untagged before=5 => 4
         manifest r a => none
         manifest r c => none
         manifest r i => none
         manifest r s => none
         manifest r b => image 10 None None
         manifest r u => image 10 None None
         manifest d/x a => image 10 None None
         referrers r b => t:image:10:-:
         untagged before=5 => 0
         sweep now=9 => unlinked 7, removed a c i s (40 bytes)
         untag r v1 => true
         untagged before=5 => 2
         sweep now=9 => unlinked 0, removed b t (20 bytes)",
    )
    .await;
}

async fn counts_pins_and_keys(world: World) {
    check(
        &world.catalog,
        "counts => 0 hosted, 0 cached, 0 tags, 0 manifests, 0 contents of 0 bytes
         announce r a size=5000000000 => ok
         announce s a size=5000000000 => ok
         push r m size=7 tags=v1,v2 => stored
         put d/x m cached => stored
         counts => 2 hosted, 1 cached, 2 tags, 2 manifests, 2 contents of 5000000007 bytes
         announce r z size=18446744073709551615 => Other
         pins => nothing
         pin a one at=5 => ok
         pin a one at=6 => ok
         pin a two at=7 => ok
         pin b one at=8 => ok
         pins => a:one:5 a:two:7 b:one:8
         unpin a one => true
         unpin a one => false
         pins => a:two:7 b:one:8
         keys => nothing
         key x => none
         key+ b expires=5 => ok
         key+ a => ok
         key+ a => Conflict
         keys => a b
         key b => b of me until Some(5)
         key a => a of me until None
         key- a => true
         key- a => false
         keys => b",
    )
    .await;
}

async fn text_with_nul_is_refused_or_not_found(world: World) {
    check(
        &world.catalog,
        "push r m media=a\0b => Conflict
         push r m type=a\0b => Conflict
         push r m subject=s note=a\0b => stored
         referrers r s => m:image:10:-:a\0b
         referrers r s type=a\0b => nothing
         put r m tags=a,ab,abc => stored
         tags r after=ab\0 => abc
         repositories after=q\0z => r
         key a\0b => none",
    )
    .await;
}
